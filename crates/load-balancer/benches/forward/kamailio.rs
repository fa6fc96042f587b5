//! Kamailio as a stateless balancer, at its best: the dispatcher's hash of the Call-ID (its algorithm 0),
//! nothing else but Max-Forwards.

use std::fs;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use crate::forwarder::{END_PATIENCE, Place, ends_in_time};
use crate::{FORWARDER, PROXY, kamailio_settings, usage};

/// What it says of itself; `None` if it is not installed.
pub(crate) fn version() -> Option<String> {
    let output = Command::new("kamailio").arg("-v").output().ok()?;
    let text = String::from_utf8_lossy(&output.stdout);
    text.lines().next().map(|line| line.trim_start_matches("version: ").to_owned())
}

/// A running one.
pub(crate) struct Kamailio {
    child: Child,
    folder: PathBuf,
}

impl Kamailio {
    /// With as many UDP workers as the balancer has threads.
    pub(crate) fn start(workers: usize, place: Place) -> Self {
        let folder = std::env::temp_dir().join(format!("forward-bench-{}", std::process::id()));
        fs::create_dir_all(&folder).expect("a folder for its configuration");
        let configuration = folder.join("balancer.cfg");
        let list = folder.join("dispatcher.list");
        fs::write(&list, format!("1 sip:{PROXY}\n")).expect("written");
        let list = list.display();
        let routes = format!(
            r#"loadmodule "sl.so"
loadmodule "maxfwd.so"
loadmodule "dispatcher.so"
modparam("dispatcher", "list_file", "{list}")
request_route {{
    if (!mf_process_maxfwd_header("70")) {{
        sl_send_reply("483", "Too Many Hops");
        exit;
    }}
    if (!ds_select_dst("1", "0")) {{
        sl_send_reply("503", "No Proxy");
        exit;
    }}
    forward();
}}
"#
        );
        let text = kamailio_settings::common(workers, FORWARDER) + &routes;
        fs::write(&configuration, text).expect("written");
        let child = place
            .command("kamailio")
            .arg("-f")
            .arg(&configuration)
            .args(["-DD", "-E", "-m", "64", "-M", "8", "-w"])
            .arg(&folder)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("it starts");
        Self { child, folder }
    }

    /// Its first process, whose children do the work.
    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }
}

impl Drop for Kamailio {
    fn drop(&mut self) {
        // It ends its children when told to end; a kill would leave them.
        let processes = usage::tree(self.child.id());
        let _ = Command::new("kill").arg(self.child.id().to_string()).status();
        if !ends_in_time(&mut self.child) {
            eprintln!("Kamailio was told to end and has not after {END_PATIENCE:?}: killed");
            let processes = processes.iter().map(u32::to_string);
            let _ = Command::new("kill").arg("-9").args(processes).status();
            let _ = self.child.wait();
        }
        let _ = fs::remove_dir_all(&self.folder);
    }
}
