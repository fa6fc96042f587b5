//! Replays a folder of raw messages against a SIP element, over UDP and TCP, and says which verdicts
//! of its index.json hold (RFC 4475, RFC 5118). After each message the element must still answer.

use std::collections::BTreeSet;
use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{IpAddr, SocketAddr, TcpStream, UdpSocket};
use std::path::PathBuf;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use serde::Deserialize;

/// The port of a Via that names none.
const DEFAULT_PORT: u16 = 5060;
/// T4: a server transaction may absorb repeats for so long (RFC 3261 §17.2.1), and over the second
/// transport every message is one.
const ABSORBED: Duration = Duration::from_secs(5);

/// What to replay, and where.
pub struct Plan {
    pub directory: PathBuf,
    pub address: SocketAddr,
    pub from: IpAddr,
    pub wait_ms: u64,
}

#[derive(Deserialize)]
struct Folder {
    messages: Vec<Entry>,
}

#[derive(Deserialize)]
struct Entry {
    name: String,
    file: String,
    verdict: Verdict,
}

/// Which final answer is right. The first that is given decides.
#[derive(Deserialize)]
struct Verdict {
    #[serde(default)]
    answer_not: Option<Vec<u16>>,
    #[serde(default)]
    answer_one_of: Option<Vec<u16>>,
    #[serde(default)]
    answer_none: bool,
    /// Whether no answer at all is right as well.
    #[serde(default)]
    silence: bool,
}

impl Verdict {
    fn holds(&self, answer: Option<u16>) -> bool {
        match (answer, &self.answer_one_of, &self.answer_not) {
            (None, _, _) => self.silence || self.answer_none,
            (Some(_), _, _) if self.answer_none => false,
            (Some(code), Some(right), _) => right.contains(&code),
            (Some(code), None, Some(wrong)) => !wrong.contains(&code),
            (Some(_), None, None) => true,
        }
    }

    fn wanted(&self) -> String {
        match (&self.answer_one_of, &self.answer_not) {
            _ if self.answer_none => "no answer".to_owned(),
            (Some(right), _) => format!("one of {right:?}"),
            (None, Some(wrong)) => format!("an answer, none of {wrong:?}"),
            (None, None) => "any answer".to_owned(),
        }
    }
}

/// Replays everything once over each transport.
///
/// # Errors
///
/// A verdict that does not hold; a folder that cannot be read; a port of it that is taken.
pub fn run(plan: &Plan) -> Result<()> {
    let index = plan.directory.join("index.json");
    let text = fs::read_to_string(&index).with_context(|| format!("{}", index.display()))?;
    let folder: Folder = serde_json::from_str(&text)?;
    let messages = folder.messages.iter().map(|entry| {
        let file = plan.directory.join(&entry.file);
        let octets = fs::read(&file).with_context(|| format!("{}", file.display()))?;
        Ok((entry, octets))
    });
    let messages: Vec<(&Entry, Vec<u8>)> = messages.collect::<Result<_>>()?;
    let wire = Wire::open(plan, ports(messages.iter().map(|(_, octets)| octets.as_slice())))?;

    let mut failed = 0;
    for transport in ["UDP", "TCP"] {
        for (entry, octets) in &messages {
            failed += usize::from(!replay(&wire, transport, entry, octets)?);
        }
        if transport == "UDP" {
            wire.pass_over(ABSORBED);
        }
    }
    println!("{} passed, {failed} failed", messages.len() * 2 - failed);
    if failed > 0 {
        bail!("{failed} verdicts do not hold");
    }
    Ok(())
}

/// Whether the verdict on one message holds and the element still answers.
fn replay(wire: &Wire, transport: &str, entry: &Entry, octets: &[u8]) -> Result<bool> {
    let answer = match transport {
        "UDP" => wire.over_udp(octets)?,
        _ => wire.over_tcp(octets)?,
    };
    // On a stream what has not come is waited for, not refused (RFC 3261 §18.3).
    let waits = transport == "TCP" && answer.is_none() && has_no_end(octets);
    let holds = waits || entry.verdict.holds(answer);
    let alive = wire.is_alive(transport)?;
    println!(
        "{} {:<32} {transport}  {:<14} wanted {}{}",
        if holds { "ok  " } else { "FAIL" },
        entry.name,
        answer.map_or_else(|| "silence".to_owned(), |code| code.to_string()),
        entry.verdict.wanted(),
        if alive { "" } else { "; and then OPTIONS was not answered" },
    );
    Ok(holds && alive)
}

/// The ports to which answers to these messages go: the default and those that top Vias name.
fn ports<'a>(messages: impl Iterator<Item = &'a [u8]>) -> BTreeSet<u16> {
    let named = messages.filter_map(|message| {
        let via = header(message, &["via", "v"])?;
        let sent_by = via.split([';', ',']).next()?.split_whitespace().last()?.to_owned();
        sent_by.rsplit_once(':')?.1.parse().ok()
    });
    named.chain([DEFAULT_PORT]).collect()
}

/// Our side: a socket per port, all read into one queue.
struct Wire {
    sender: UdpSocket,
    heard: Receiver<Vec<u8>>,
    address: SocketAddr,
    from: IpAddr,
    wait: Duration,
}

impl Wire {
    fn open(plan: &Plan, ports: BTreeSet<u16>) -> Result<Self> {
        let (to_us, heard) = channel();
        let bind = |port: u16| {
            let socket = UdpSocket::bind((plan.from, port))
                .with_context(|| format!("{}:{port} must be free to listen on", plan.from))?;
            listen(socket.try_clone()?, to_us.clone());
            Ok::<_, anyhow::Error>(socket)
        };
        let sender = bind(DEFAULT_PORT)?;
        for port in ports.into_iter().filter(|port| *port != DEFAULT_PORT) {
            bind(port)?;
        }
        let wait = Duration::from_millis(plan.wait_ms);
        Ok(Self { sender, heard, address: plan.address, from: plan.from, wait })
    }

    /// Takes whatever comes within some time, and forgets it.
    fn pass_over(&self, time: Duration) {
        for _ in 0..time.as_millis() / self.wait.as_millis().max(1) + 1 {
            while self.heard.recv_timeout(self.wait).is_ok() {}
        }
    }

    /// The final answer to a message, if one comes in time.
    fn over_udp(&self, message: &[u8]) -> Result<Option<u16>> {
        while self.heard.try_recv().is_ok() {}
        self.sender.send_to(message, self.address)?;
        while let Ok(heard) = self.heard.recv_timeout(self.wait) {
            if let Some(code) = final_answer(&heard, message) {
                if let Some(ack) = acknowledgement(&heard, message) {
                    self.sender.send_to(&ack, self.address)?;
                }
                return Ok(Some(code));
            }
        }
        Ok(None)
    }

    fn over_tcp(&self, message: &[u8]) -> Result<Option<u16>> {
        let mut stream = TcpStream::connect_timeout(&self.address, self.wait)
            .with_context(|| format!("{} takes no TCP connection", self.address))?;
        stream.set_read_timeout(Some(self.wait))?;
        stream.write_all(message)?;
        let mut heard = Vec::new();
        let mut chunk = [0; 4096];
        loop {
            // A time-out, a close and a reset all mean the same here: nothing more will come.
            let Ok(count) = stream.read(&mut chunk) else { return Ok(None) };
            if count == 0 {
                return Ok(None);
            }
            heard.extend_from_slice(&chunk[..count]);
            // Answers may follow one another: look at each.
            let text = String::from_utf8_lossy(&heard).into_owned();
            let starts: Vec<usize> = text.match_indices("SIP/2.0 ").map(|(at, _)| at).collect();
            for at in starts {
                let answer = text.as_bytes().get(at..).unwrap_or_default();
                if let Some(code) = final_answer(answer, message) {
                    if let Some(ack) = acknowledgement(answer, message) {
                        stream.write_all(&ack)?;
                    }
                    return Ok(Some(code));
                }
            }
        }
    }

    /// Whether the element still answers an ordinary OPTIONS.
    fn is_alive(&self, transport: &str) -> Result<bool> {
        let (from, address) = (self.from, self.address);
        let port = self.sender.local_addr()?.port();
        for attempt in 0..3 {
            let probe = format!(
                "OPTIONS sip:{address} SIP/2.0\r\n\
                 Via: SIP/2.0/{transport} {from}:{port};branch=z9hG4bKprobe{attempt}\r\n\
                 Max-Forwards: 70\r\nFrom: <sip:probe@{from}>;tag=probe\r\nTo: <sip:{address}>\r\n\
                 Call-ID: probe-{attempt}@{from}\r\nCSeq: 1 OPTIONS\r\nContent-Length: 0\r\n\r\n"
            );
            let answer = match transport {
                "UDP" => self.over_udp(probe.as_bytes())?,
                _ => self.over_tcp(probe.as_bytes())?,
            };
            if answer.is_some() {
                return Ok(true);
            }
        }
        Ok(false)
    }
}

fn listen(socket: UdpSocket, to_us: Sender<Vec<u8>>) {
    thread::spawn(move || {
        let mut buffer = vec![0; 65_536];
        // The main thread gone ends this one; a socket error is as good as silence.
        while let Ok((count, _)) = socket.recv_from(&mut buffer) {
            if to_us.send(buffer[..count].to_vec()).is_err() {
                return;
            }
        }
    });
}

/// The status code, if `heard` is a final response to `message`.
fn final_answer(heard: &[u8], message: &[u8]) -> Option<u16> {
    let first = String::from_utf8_lossy(heard.split(|byte| *byte == b'\r').next()?).into_owned();
    let code: u16 = first.strip_prefix("SIP/2.0 ")?.get(..3)?.parse().ok()?;
    let same = |names: &[&str]| match (header(heard, names), header(message, names)) {
        (Some(answer), Some(asked)) => answer == asked,
        // What the message lacks or garbles cannot tell answers apart.
        _ => true,
    };
    (code >= 200 && same(&["call-id", "i"]) && same(&["cseq"])).then_some(code)
}

/// The ACK that a refusal of an INVITE is owed, so that it is not repeated into later messages.
fn acknowledgement(heard: &[u8], message: &[u8]) -> Option<Vec<u8>> {
    let uri = message.strip_prefix(b"INVITE ")?.split(|byte| *byte == b' ').next()?;
    let uri = String::from_utf8_lossy(uri).into_owned();
    let get = |names: &[&str]| header(heard, names);
    let number = get(&["cseq"])?.split_whitespace().next()?.to_owned();
    let (via, from) = (get(&["via", "v"])?, get(&["from", "f"])?);
    let (to, call_id) = (get(&["to", "t"])?, get(&["call-id", "i"])?);
    let ack = format!(
        "ACK {uri} SIP/2.0\r\nVia: {via}\r\nFrom: {from}\r\nTo: {to}\r\nCall-ID: {call_id}\r\n\
         CSeq: {number} ACK\r\nMax-Forwards: 70\r\nContent-Length: 0\r\n\r\n"
    );
    Some(ack.into_bytes())
}

/// The first value of a header field, white space folded.
fn header(message: &[u8], names: &[&str]) -> Option<String> {
    let text = String::from_utf8_lossy(message).replace("\r\n ", " ").replace("\r\n\t", " ");
    text.lines().skip(1).take_while(|line| !line.is_empty()).find_map(|line| {
        let (name, value) = line.split_once(':')?;
        let name = name.trim().to_ascii_lowercase();
        names
            .contains(&name.as_str())
            .then(|| value.split_whitespace().collect::<Vec<_>>().join(" "))
    })
}

/// Whether more must follow: the empty line, or octets of the body.
fn has_no_end(message: &[u8]) -> bool {
    let Some(at) = message.windows(4).position(|it| it == b"\r\n\r\n") else {
        return true;
    };
    let body = message.len() - at - 4;
    let claimed = header(message, &["content-length", "l"]).and_then(|it| it.parse::<usize>().ok());
    claimed.is_some_and(|claimed| claimed > body)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_verdict_judges_codes_and_silence() {
        let verdict = |text: &str| serde_json::from_str::<Verdict>(text).expect("a verdict");
        let one_of = verdict(r#"{"answer_one_of":[400],"silence":false}"#);
        let not = verdict(r#"{"answer_not":[400],"silence":false}"#);
        let none = verdict(r#"{"answer_none":true,"silence":true}"#);
        let table = [
            (&one_of, Some(400), true),
            (&one_of, Some(401), false),
            (&one_of, None, false),
            (&not, Some(404), true),
            (&not, Some(400), false),
            (&not, None, false),
            (&none, None, true),
            (&none, Some(200), false),
        ];
        for (verdict, answer, expected) in table {
            assert_eq!(verdict.holds(answer), expected, "{} on {answer:?}", verdict.wanted());
        }
    }

    #[test]
    fn answers_are_awaited_where_the_vias_say() {
        let message = |via: &str| format!("OPTIONS sip:a SIP/2.0\r\n{via}\r\n\r\n").into_bytes();
        let messages = [
            message("v: SIP/2.0/UDP [2001:db8::9]:6050;branch=1:7"),
            message("Via : SIP / 2.0\r\n /UDP\r\n  a.test:5070 ;branch=1"),
            message("Via: SIP/2.0/UDP 192.0.2.1:5050"),
            message("Via: SIP/2.0/UDP b.test"),
            message("Max-Forwards: 70"),
        ];
        let found: Vec<u16> = ports(messages.iter().map(Vec::as_slice)).into_iter().collect();
        assert_eq!(found, [5050, 5060, 5070, 6050]);
    }

    #[test]
    fn on_a_stream_a_message_without_its_end_is_waited_for() {
        let table = [
            ("OPTIONS sip:a SIP/2.0\r\nl: 0\r\n", true),
            ("OPTIONS sip:a SIP/2.0\r\nl: 0\r\n\r\n", false),
            ("OPTIONS sip:a SIP/2.0\r\nContent-Length: 2\r\n\r\na", true),
            ("OPTIONS sip:a SIP/2.0\r\nContent-Length: 2\r\n\r\nab", false),
        ];
        for (text, expected) in table {
            assert_eq!(has_no_end(text.as_bytes()), expected, "{text}");
        }
    }

    #[test]
    fn only_an_answer_to_this_message_counts() {
        let message = b"INVITE sip:a@b SIP/2.0\r\ni: one\r\nCSeq:  1\r\n INVITE\r\n\r\n";
        let answer = |call_id: &str, status: &str| {
            format!("SIP/2.0 {status}\r\nCall-ID: {call_id}\r\nCSeq: 1 INVITE\r\n\r\n").into_bytes()
        };
        assert_eq!(final_answer(&answer("one", "404 Not Found"), message), Some(404));
        assert_eq!(final_answer(&answer("two", "404 Not Found"), message), None);
        assert_eq!(final_answer(&answer("one", "100 Trying"), message), None);
    }
}
