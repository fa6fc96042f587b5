//! Strangers: requests that nobody has authenticated, sent again and again to one node.

use std::io;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use load_client::Stop;

/// Between two messages, and how many there are at most: 20 minutes of them.
const EVERY: Duration = Duration::from_millis(20);
const MESSAGES_MAX: u64 = 60_000;

/// Sends until it is stopped.
pub(super) struct Noise {
    stop: Stop,
    sent: Arc<AtomicU64>,
    thread: Option<JoinHandle<()>>,
}

impl Noise {
    /// An INVITE, a REGISTER, an OPTIONS and something that is no SIP, in turn, to `node`.
    pub(super) fn start(source: IpAddr, node: SocketAddr) -> io::Result<Self> {
        let socket = UdpSocket::bind((source, 0))?;
        let local = socket.local_addr()?;
        let (stop, sent) = (Stop::new(), Arc::new(AtomicU64::new(0)));
        let (told, counted) = (stop.clone(), Arc::clone(&sent));
        let thread = std::thread::Builder::new().name("noise".to_owned()).spawn(move || {
            for number in 0..MESSAGES_MAX {
                if told.is_stopped() {
                    return;
                }
                // A node that has gone is what is waited for.
                if socket.send_to(message(number, local, node).as_bytes(), node).is_ok() {
                    counted.fetch_add(1, Ordering::Relaxed);
                }
                // What comes back is never read: it does not matter.
                std::thread::park_timeout(EVERY);
            }
        })?;
        Ok(Self { stop, sent, thread: Some(thread) })
    }

    /// How many messages it were.
    pub(super) fn stop(mut self) -> u64 {
        self.join();
        self.sent.load(Ordering::Relaxed)
    }

    fn join(&mut self) {
        self.stop.stop();
        if let Some(thread) = self.thread.take() {
            // A panic of the thread was printed by the thread.
            let _ = thread.join();
        }
    }
}

impl Drop for Noise {
    fn drop(&mut self) {
        self.join();
    }
}

fn message(number: u64, local: SocketAddr, node: SocketAddr) -> String {
    let method = match number % 4 {
        0 => "INVITE",
        1 => "REGISTER",
        2 => "OPTIONS",
        _ => return format!("noise {number}\r\n\r\n"),
    };
    format!(
        "{method} sip:nobody@{node} SIP/2.0\r\nVia: SIP/2.0/UDP {local};branch=z9hG4bKnoise{number};rport\r\n\
         Max-Forwards: 70\r\nFrom: <sip:stranger@{node}>;tag=noise{number}\r\nTo: <sip:nobody@{node}>\r\n\
         Call-ID: noise-{number}@{}\r\nCSeq: 1 {method}\r\nContact: <sip:stranger@{local}>\r\n\
         Content-Length: 0\r\n\r\n",
        local.ip()
    )
}
