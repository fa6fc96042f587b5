//! Replays a folder of raw messages against a SIP element, over UDP and TCP, and says which verdicts
//! of its index.json hold (RFC 4475, RFC 5118). After each message the element must still answer.

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{IpAddr, SocketAddr, TcpStream, UdpSocket};
use std::path::PathBuf;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use serde::Deserialize;

/// Ports that the Vias of such messages name.
const PORTS: [u16; 3] = [5060, 5050, 5070];

/// What to replay, and where.
pub(crate) struct Plan {
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
pub(crate) fn run(plan: &Plan) -> Result<()> {
    let index = plan.directory.join("index.json");
    let text = fs::read_to_string(&index).with_context(|| format!("{}", index.display()))?;
    let folder: Folder = serde_json::from_str(&text)?;
    let wire = Wire::open(plan)?;

    let mut failed = 0;
    for entry in &folder.messages {
        let message = fs::read(plan.directory.join(&entry.file))
            .with_context(|| format!("message {}", entry.name))?;
        for transport in ["UDP", "TCP"] {
            let answer = match transport {
                "UDP" => wire.over_udp(&message)?,
                _ => wire.over_tcp(&message)?,
            };
            // On a stream a body that never comes is waited for, not refused (RFC 3261 §18.3).
            let waits = transport == "TCP" && answer.is_none() && claims_more_than_it_has(&message);
            let holds = waits || entry.verdict.holds(answer);
            let alive = wire.is_alive(transport)?;
            failed += usize::from(!holds || !alive);
            println!(
                "{} {:<32} {transport}  {:<14} wanted {}{}",
                if holds { "ok  " } else { "FAIL" },
                entry.name,
                answer.map_or_else(|| "silence".to_owned(), |code| code.to_string()),
                entry.verdict.wanted(),
                if alive { "" } else { "; and then OPTIONS was not answered" },
            );
        }
    }
    println!("{} passed, {failed} failed", folder.messages.len() * 2 - failed);
    if failed > 0 {
        bail!("{failed} verdicts do not hold");
    }
    Ok(())
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
    fn open(plan: &Plan) -> Result<Self> {
        let (to_us, heard) = channel();
        let mut sockets = Vec::new();
        for port in PORTS {
            let socket = UdpSocket::bind((plan.from, port))
                .with_context(|| format!("{}:{port} must be free to listen on", plan.from))?;
            listen(socket.try_clone()?, to_us.clone());
            sockets.push(socket);
        }
        let sender = sockets.swap_remove(0);
        let wait = Duration::from_millis(plan.wait_ms);
        Ok(Self { sender, heard, address: plan.address, from: plan.from, wait })
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

fn claims_more_than_it_has(message: &[u8]) -> bool {
    let body = message.windows(4).position(|it| it == b"\r\n\r\n").map(|at| message.len() - at - 4);
    let claimed = header(message, &["content-length", "l"]).and_then(|it| it.parse::<usize>().ok());
    matches!((body, claimed), (Some(body), Some(claimed)) if claimed > body)
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
