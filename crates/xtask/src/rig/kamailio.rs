//! Kamailio as an authenticating registrar and proxy, at its best: everything in memory, no TCP, no logs.

use std::fs;
use std::net::{SocketAddr, UdpSocket};
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};

use super::calls::{CALLEE, DOMAIN, PASSWORD};
use super::element::Element;
use super::kamailio_settings;
use super::process::{self, Place, Running};

const ADDRESS: &str = "127.63.20.1:5060";
const START_TIME_MAX: Duration = Duration::from_secs(10);

pub(crate) struct Kamailio {
    process: Running,
    targets: Vec<SocketAddr>,
}

impl Kamailio {
    pub(crate) fn start(folder: &Path, workers: u16, place: &Place) -> Result<Self> {
        let configuration = folder.join("kamailio.cfg");
        fs::write(&configuration, text(workers))?;
        let mut command = place.command("kamailio");
        command.arg("-f").arg(&configuration);
        command.args(["-DD", "-E", "-m", "256", "-M", "16", "-w"]).arg(folder);
        let process = Running::start(command.stdout(Stdio::null()).stderr(Stdio::null()))?;
        Ok(Self { process, targets: vec![ADDRESS.parse()?] })
    }
}

impl Element for Kamailio {
    fn name(&self) -> &str {
        "Kamailio, memory"
    }

    fn targets(&self) -> &[SocketAddr] {
        &self.targets
    }

    fn processes(&self) -> Vec<u32> {
        super::usage::tree(self.process.id())
    }

    /// By a REGISTER: it asks for no password there.
    fn register(&self, callee: SocketAddr) -> Result<()> {
        let socket = UdpSocket::bind((callee.ip(), 0))?;
        socket.set_read_timeout(Some(Duration::from_millis(200)))?;
        let local = socket.local_addr()?;
        let register = format!(
            "REGISTER sip:{DOMAIN} SIP/2.0\r\nVia: SIP/2.0/UDP {local};branch=z9hG4bKbench\r\n\
             Max-Forwards: 70\r\nFrom: <sip:{CALLEE}@{DOMAIN}>;tag=1\r\nTo: <sip:{CALLEE}@{DOMAIN}>\r\n\
             Call-ID: bench@{local}\r\nCSeq: 1 REGISTER\r\nContact: <sip:{CALLEE}@{callee}>\r\n\
             Expires: 36000\r\nContent-Length: 0\r\n\r\n"
        );
        let answer = process::wait_for(START_TIME_MAX, || {
            // Refused or silent: it does not listen yet.
            socket.send_to(register.as_bytes(), self.targets[0]).ok()?;
            let mut answer = [0; 2_048];
            let length = socket.recv(&mut answer).ok()?;
            Some(String::from_utf8_lossy(&answer[..length]).into_owned())
        });
        let answer = answer.context("no answer to a REGISTER")?;
        if !answer.starts_with("SIP/2.0 200") {
            bail!("{answer}");
        }
        Ok(())
    }
}

/// Digest for INVITE and BYE, passwords in a hash table, bindings in memory.
fn text(workers: u16) -> String {
    kamailio_settings::common(workers.into(), ADDRESS) + &modules() + &routes()
}

fn modules() -> String {
    format!(
        r#"alias="{DOMAIN}"
loadmodule "sl.so"
loadmodule "tm.so"
loadmodule "tmx.so"
loadmodule "rr.so"
loadmodule "pv.so"
loadmodule "maxfwd.so"
loadmodule "textops.so"
loadmodule "siputils.so"
loadmodule "usrloc.so"
loadmodule "registrar.so"
loadmodule "auth.so"
loadmodule "htable.so"
modparam("usrloc", "db_mode", 0)
modparam("htable", "htable", "passwords=>size=8;")
modparam("rr", "enable_full_lr", 0)
"#
    )
}

fn routes() -> String {
    format!(
        r#"
event_route[htable:mod-init] {{
    $sht(passwords=>alice) = "{PASSWORD}";
}}

request_route {{
    if (!mf_process_maxfwd_header("70")) {{
        sl_send_reply("483", "Too Many Hops");
        exit;
    }}
    if (is_method("CANCEL")) {{
        if (t_check_trans()) t_relay();
        exit;
    }}
    if (is_method("REGISTER")) {{
        save("location");
        exit;
    }}
    if (is_method("ACK")) {{
        if (has_totag() && loose_route()) {{
            t_relay();
            exit;
        }}
        t_check_trans();
        exit;
    }}
    t_check_trans();
    if (is_method("INVITE|BYE")) {{
        if (!pv_proxy_authenticate("{DOMAIN}", "$sht(passwords=>$fU)", "0")) {{
            auth_challenge("{DOMAIN}", "0");
            exit;
        }}
        consume_credentials();
    }}
    if (has_totag()) {{
        if (loose_route()) {{
            t_relay();
            exit;
        }}
        sl_send_reply("404", "Not Here");
        exit;
    }}
    if (is_method("INVITE")) record_route();
    if (!lookup("location")) {{
        sl_send_reply("404", "Not Found");
        exit;
    }}
    t_relay();
}}
"#
    )
}
