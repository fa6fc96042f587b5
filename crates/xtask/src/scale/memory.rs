//! What a transaction in flight and an idle connection take in real processes.

use std::fmt::Write as _;
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context as _, Result};
use socket2::{Domain, Socket, Type};

use crate::rig::calls::{CALLEE, CALLEE_ADDRESS, CALLER, Callees, DOMAIN, PASSWORD};
use crate::rig::cloud::{Cloud, Plan as CloudPlan};
use crate::rig::element::Element as _;
use crate::rig::process::{self, Place, Running};
use crate::rig::{Rig, usage};

/// Calls that ring at once, and how many more of them begin per second.
const RINGING: u32 = 4_000;
const CALLS_PER_S: u32 = 400;
/// Connections, and how many a balancer takes from one address.
const CONNECTIONS: usize = 5_000;
const CONNECTIONS_PER_SOURCE: usize = 1_000;
/// Until a process is as large as it becomes.
const SETTLING: Duration = Duration::from_secs(2);
const CONNECT_TIME_MAX: Duration = Duration::from_secs(5);

pub(super) fn measure(rig: &Rig) -> Result<String> {
    let cloud =
        Cloud::start(rig, &CloudPlan::new("SipCloud, memory", 0, "kind = \"memory\"\n", 1))?;
    cloud.add_users()?;
    cloud.register(CALLEE_ADDRESS.parse()?)?;
    let mut text = String::from(
        "What a process grows by, divided by how many (proportional set size, real processes).\n\n\
         | what | how many | in all | each |\n|---|---|---|---|\n",
    );
    let mut line = |what: &str, number: usize, kib: u64| {
        let each = kib as f64 / number as f64;
        let _ = writeln!(text, "| {what} | {number} | {kib} KiB | {each:.2} KiB |");
    };
    let kib = connections(&cloud)?;
    line("idle TCP connection of a client, in the balancer", CONNECTIONS, kib);
    let kib = calls(rig, &cloud)?;
    line(
        "ringing call, in the proxy: an INVITE server and client transaction",
        RINGING as usize,
        kib,
    );
    Ok(text)
}

/// How much the balancer grows by clients that connect and say nothing.
fn connections(cloud: &Cloud) -> Result<u64> {
    let balancer = cloud.pid_of("balancer-1").context("the balancer has gone")?;
    let address = cloud.balancer()?;
    let before = usage::memory_kib(&[balancer]);
    let mut open = Vec::with_capacity(CONNECTIONS);
    for number in 0..CONNECTIONS {
        let source = 1 + u8::try_from(number / CONNECTIONS_PER_SOURCE)?;
        open.push(connect(IpAddr::from([127, 63, 40, source]), address)?);
    }
    process::pause(SETTLING);
    let after = usage::memory_kib(&[balancer]);
    let is_open = |stream: &TcpStream| {
        let mut byte = [0];
        stream.set_nonblocking(true).is_ok()
            && matches!(stream.peek(&mut byte),
                        Err(error) if error.kind() == std::io::ErrorKind::WouldBlock)
    };
    let still_open = open.iter().filter(|stream| is_open(stream)).count();
    anyhow::ensure!(still_open == CONNECTIONS, "only {still_open} connections are open");
    Ok(after.saturating_sub(before))
}

fn connect(source: IpAddr, to: SocketAddr) -> Result<TcpStream> {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
    socket.bind(&SocketAddr::new(source, 0).into())?;
    socket.connect_timeout(&to.into(), CONNECT_TIME_MAX).context("the balancer takes it")?;
    Ok(socket.into())
}

/// How much the proxy grows by calls that ring and ring.
fn calls(rig: &Rig, cloud: &Cloud) -> Result<u64> {
    let proxy = cloud.pid_of("proxy-1").context("the proxy has gone")?;
    let ring = ["--ring", "60s"];
    let _callees = Callees::start(&rig.program, &Place::Anywhere, &ring)?;
    let before = usage::memory_kib(&[proxy]);
    let mut callers = cloud.program();
    callers.args(["load", "uac", "--local", "127.63.31.1:0", "--domain", DOMAIN]);
    callers.args([format!("--user={CALLER}:{PASSWORD}"), format!("--callee={CALLEE}")]);
    callers.args(cloud.targets().iter().map(|target| format!("--target={target}")));
    let seconds = RINGING / CALLS_PER_S;
    callers.arg(format!("--schedule={CALLS_PER_S}@{seconds}s"));
    let callers = Running::start(callers.stdout(Stdio::null()))?;
    let ringing = process::wait_for(Duration::from_secs((seconds + 10).into()), || {
        cloud.transactions_of("proxy-1").filter(|number| *number >= u64::from(RINGING))
    });
    ringing.context("the calls do not ring")?;
    process::pause(SETTLING);
    let after = usage::memory_kib(&[proxy]);
    drop(callers);
    Ok(after.saturating_sub(before))
}
