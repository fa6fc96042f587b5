//! The life of one connection over any byte stream: reads frames, writes the queue, notices
//! idleness, and reports what it could not deliver.

use std::collections::VecDeque;
use std::future::poll_fn;
use std::io::{self, IoSlice};
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::task::Poll;
use std::time::Duration;

use bytes::Bytes;
use sip_message::{FrameError, Transport};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::sync::mpsc;
use tokio::time::{self, Instant};

use crate::connections::{Admitted, Outgoing};
use crate::limits::{CLOSE_WAIT, MALFORMED_WAIT, READ_BYTES, WRITE_MESSAGES_MAX};
use crate::poll::Waker;
use crate::stream::framing::{Framing, Unit};
use crate::stream::{CloseReason, ConnectionId, Shared, StreamEvent, StreamLimits};

/// The answer to a keep-alive (RFC 5626 §3.5.1).
const PONG: Bytes = Bytes::from_static(b"\r\n");

/// The bounded queue towards the role.
#[derive(Clone, Debug)]
pub(super) struct Events {
    pub(super) queue: mpsc::Sender<StreamEvent>,
    pub(super) waker: Waker,
}

impl Events {
    /// Waits while the queue is full: then nothing is read from the network, and TCP slows the peer.
    async fn push(&self, event: StreamEvent) {
        if self.queue.send(event).await.is_ok() {
            self.waker.wake();
        }
    }
}

/// Reports everything queued for a connection that did not come to be.
pub(super) async fn give_up(admitted: Admitted, error: io::ErrorKind, shared: &Shared) {
    let Admitted { id, remote, outgoing } = admitted;
    shared.connections.remove(id);
    let mut unwritten = Unwritten::new(outgoing);
    unwritten.take_rest();
    unwritten.report(id, remote, error, shared).await;
}

/// One open connection.
pub(super) struct Connection {
    pub(super) id: ConnectionId,
    pub(super) transport: Transport,
    pub(super) local: SocketAddr,
    pub(super) remote: SocketAddr,
    pub(super) shared: Arc<Shared>,
}

/// How the reading side ended.
enum ReadEnd {
    EndOfStream,
    Malformed,
    Unfinished,
    Failed(io::ErrorKind),
}

/// How the writing side ended.
enum WriteEnd {
    /// The connection has left the table and all is written.
    QueueEnded,
    Stalled,
    Failed(io::ErrorKind),
}

impl Connection {
    /// Runs until either side ends it.
    pub(super) async fn run<R, W>(self, mut reader: R, mut writer: W, outgoing: Outgoing)
    where
        R: AsyncRead + Unpin,
        W: AsyncWrite + Unpin,
    {
        let Self { id, transport, local, remote, .. } = self;
        self.shared.events.push(StreamEvent::Opened { id, transport, local, remote }).await;
        let mut unwritten = Unwritten::new(outgoing);
        let reason = self.serve(&mut reader, &mut writer, &mut unwritten).await;

        // From here on nothing can be queued any more.
        self.shared.connections.remove(id);
        unwritten.take_rest();
        let error = match reason {
            CloseReason::Error(kind) => kind,
            CloseReason::Stalled => io::ErrorKind::TimedOut,
            // The peer can still read: deliver what was queued in the meantime.
            _ => match time::timeout(CLOSE_WAIT, unwritten.write_all(&mut writer, &self)).await {
                Ok(Ok(())) => io::ErrorKind::NotConnected,
                Ok(Err(error)) => error.kind(),
                Err(_) => io::ErrorKind::TimedOut,
            },
        };
        unwritten.report(id, remote, error, &self.shared).await;
        self.count_close(reason);
        self.shared.events.push(StreamEvent::Closed { id, remote, reason }).await;
        // Unread bytes at closing would make the kernel reset the connection, and the peer could
        // lose our last words.
        let _ = time::timeout(CLOSE_WAIT, async {
            let _ = writer.shutdown().await;
            if !matches!(reason, CloseReason::EndOfStream | CloseReason::Error(_)) {
                while read_some(&mut reader, |_| ()).await.is_ok_and(|read| read > 0) {}
            }
        })
        .await;
    }

    async fn serve<R, W>(
        &self,
        reader: &mut R,
        writer: &mut W,
        unwritten: &mut Unwritten,
    ) -> CloseReason
    where
        R: AsyncRead + Unpin,
        W: AsyncWrite + Unpin,
    {
        let activity = Activity::new();
        let pongs = unwritten.own.clone();
        let reading = self.read(reader, &activity, &pongs);
        let writing = unwritten.write_queue(writer, &activity, self);
        let idling = activity.until_idle(&self.shared.connections.limits);
        tokio::pin!(reading, writing, idling);
        let read_end = tokio::select! {
            end = &mut reading => end,
            end = &mut writing => return end.reason(),
            () = &mut idling => return CloseReason::Idle,
        };
        match read_end {
            ReadEnd::EndOfStream => {
                self.shared.connections.keep_for_answers(self.id, self.remote);
                let wait = self.shared.connections.limits.half_closed_wait;
                match time::timeout(wait, writing).await {
                    Ok(WriteEnd::QueueEnded) | Err(_) => CloseReason::EndOfStream,
                    Ok(end) => end.reason(),
                }
            }
            ReadEnd::Unfinished => CloseReason::Unfinished,
            ReadEnd::Failed(kind) => CloseReason::Error(kind),
            ReadEnd::Malformed => {
                self.shared.connections.withdraw(self.id, self.remote);
                // The role answers and closes; if it does not, time does.
                match time::timeout(MALFORMED_WAIT, writing).await {
                    Ok(WriteEnd::QueueEnded) | Err(_) => CloseReason::Malformed,
                    Ok(end) => end.reason(),
                }
            }
        }
    }

    async fn read<R: AsyncRead + Unpin>(
        &self,
        reader: &mut R,
        activity: &Activity,
        pongs: &mpsc::WeakSender<Bytes>,
    ) -> ReadEnd {
        let message_timeout = self.shared.connections.limits.message_timeout;
        let mut framing = Framing::new();
        // When the message that is now incomplete began.
        let mut begun: Option<Instant> = None;
        loop {
            let reading = read_some(reader, |bytes| framing.push(bytes));
            let outcome = match begun {
                Some(begun) => match time::timeout_at(begun + message_timeout, reading).await {
                    Ok(outcome) => outcome,
                    Err(_) => return ReadEnd::Unfinished,
                },
                None => reading.await,
            };
            match outcome {
                Ok(0) => return ReadEnd::EndOfStream,
                Ok(_) => activity.touch(),
                Err(error) => return ReadEnd::Failed(error.kind()),
            }
            while let Some(unit) = framing.next() {
                begun = None;
                match unit {
                    Unit::Message(bytes) => {
                        activity.use_it();
                        self.deliver(bytes).await;
                    }
                    Unit::KeepAlive => self.answer_keep_alive(pongs),
                    Unit::Malformed { error, bytes } => {
                        self.report_malformed(error, bytes).await;
                        return ReadEnd::Malformed;
                    }
                }
            }
            if framing.is_between_messages() {
                begun = None;
            } else {
                begun = begun.or_else(|| Some(Instant::now()));
            }
        }
    }

    async fn deliver(&self, bytes: Bytes) {
        let Self { id, transport, local, remote, .. } = *self;
        self.shared.connections.totals.messages_in.fetch_add(1, Ordering::Relaxed);
        self.shared.events.push(StreamEvent::Message { id, transport, local, remote, bytes }).await;
    }

    async fn report_malformed(&self, error: FrameError, bytes: Bytes) {
        let Self { id, transport, local, remote, .. } = *self;
        self.shared.connections.totals.malformed.fetch_add(1, Ordering::Relaxed);
        let event = StreamEvent::Malformed { id, transport, local, remote, error, bytes };
        self.shared.events.push(event).await;
    }

    fn answer_keep_alive(&self, pongs: &mpsc::WeakSender<Bytes>) {
        self.shared.connections.totals.keep_alives.fetch_add(1, Ordering::Relaxed);
        if let Some(queue) = pongs.upgrade() {
            // A full queue shows the peer that we live as well as a pong would.
            let _ = queue.try_send(PONG);
        }
    }

    fn count_close(&self, reason: CloseReason) {
        let totals = &self.shared.connections.totals;
        match reason {
            CloseReason::Idle => totals.idle_closed.fetch_add(1, Ordering::Relaxed),
            CloseReason::Stalled | CloseReason::Unfinished => {
                totals.stalled_closed.fetch_add(1, Ordering::Relaxed)
            }
            _ => 0,
        };
    }
}

impl WriteEnd {
    fn reason(self) -> CloseReason {
        match self {
            Self::QueueEnded => CloseReason::ByUs,
            Self::Stalled => CloseReason::Stalled,
            Self::Failed(kind) => CloseReason::Error(kind),
        }
    }
}

/// What is queued and what is half written.
struct Unwritten {
    queue: mpsc::Receiver<Bytes>,
    own: mpsc::WeakSender<Bytes>,
    queued_bytes: Arc<std::sync::atomic::AtomicUsize>,
    /// Taken from the queue; the first may be written in part.
    taken: VecDeque<Bytes>,
    /// Bytes of the first that are written.
    written: usize,
}

impl Unwritten {
    fn new(outgoing: Outgoing) -> Self {
        let Outgoing { queue, own, queued_bytes } = outgoing;
        Self { queue, own, queued_bytes, taken: VecDeque::new(), written: 0 }
    }

    /// Writes what comes until the queue ends.
    async fn write_queue<W: AsyncWrite + Unpin>(
        &mut self,
        writer: &mut W,
        activity: &Activity,
        connection: &Connection,
    ) -> WriteEnd {
        let limit = connection.shared.connections.limits.write_timeout;
        loop {
            if self.taken.is_empty() {
                let Some(first) = self.queue.recv().await else {
                    return WriteEnd::QueueEnded;
                };
                self.taken.push_back(first);
            }
            while self.taken.len() < WRITE_MESSAGES_MAX
                && let Ok(next) = self.queue.try_recv()
            {
                self.taken.push_back(next);
            }
            match time::timeout(limit, self.write_once(writer, connection)).await {
                Ok(Ok(())) => {
                    activity.touch();
                    activity.use_it();
                }
                Ok(Err(error)) => return WriteEnd::Failed(error.kind()),
                Err(_) => return WriteEnd::Stalled,
            }
        }
    }

    /// Writes what was taken.
    async fn write_all<W: AsyncWrite + Unpin>(
        &mut self,
        writer: &mut W,
        connection: &Connection,
    ) -> io::Result<()> {
        while !self.taken.is_empty() {
            self.write_once(writer, connection).await?;
        }
        writer.flush().await
    }

    /// One vectored write. Safe to abandon: what was written is noted in the same step.
    async fn write_once<W: AsyncWrite + Unpin>(
        &mut self,
        writer: &mut W,
        connection: &Connection,
    ) -> io::Result<()> {
        let mut slices = [IoSlice::new(&[]); WRITE_MESSAGES_MAX];
        let mut skip = self.written;
        let count = self.taken.len().min(WRITE_MESSAGES_MAX);
        for (slice, bytes) in slices.iter_mut().zip(&self.taken) {
            *slice = IoSlice::new(bytes.get(skip..).unwrap_or_default());
            skip = 0;
        }
        let mut written = writer.write_vectored(slices.get(..count).unwrap_or_default()).await?;
        if written == 0 && self.taken.iter().any(|bytes| !bytes.is_empty()) {
            return Err(io::ErrorKind::WriteZero.into());
        }
        written += self.written;
        while let Some(first) = self.taken.front().map(Bytes::len).filter(|&it| it <= written) {
            written -= first;
            self.discharge(first);
            if let Some(bytes) = self.taken.pop_front()
                && bytes != PONG
            {
                connection.shared.connections.totals.messages_out.fetch_add(1, Ordering::Relaxed);
            }
        }
        self.written = written;
        Ok(())
    }

    /// Takes all that the queue still holds; only after the connection has left the table.
    fn take_rest(&mut self) {
        self.queue.close();
        while let Ok(bytes) = self.queue.try_recv() {
            self.taken.push_back(bytes);
        }
    }

    /// Tells the role of every message that was not written to its end.
    async fn report(
        &mut self,
        id: ConnectionId,
        to: SocketAddr,
        error: io::ErrorKind,
        shared: &Shared,
    ) {
        while let Some(undelivered) = self.taken.pop_front() {
            if undelivered != PONG {
                shared.connections.totals.undelivered.fetch_add(1, Ordering::Relaxed);
                shared.events.push(StreamEvent::Failed { id, to, undelivered, error }).await;
            }
        }
    }

    fn discharge(&self, bytes: usize) {
        // Pongs enter the queue uncounted: never below zero.
        let _ = self.queued_bytes.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |queued| {
            Some(queued.saturating_sub(bytes))
        });
    }
}

/// When something last came or left, in milliseconds after the connection began.
struct Activity {
    began: Instant,
    last_millis: AtomicU64,
    /// Whether it has ever carried a message: who connects and says nothing is not waited for long.
    is_used: AtomicBool,
}

impl Activity {
    fn new() -> Self {
        let (last_millis, is_used) = (AtomicU64::new(0), AtomicBool::new(false));
        Self { began: Instant::now(), last_millis, is_used }
    }

    fn use_it(&self) {
        self.is_used.store(true, Ordering::Relaxed);
    }

    fn touch(&self) {
        let elapsed = u64::try_from(self.began.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.last_millis.store(elapsed, Ordering::Relaxed);
    }

    async fn until_idle(&self, limits: &StreamLimits) {
        loop {
            let is_used = self.is_used.load(Ordering::Relaxed);
            let limit = if is_used { limits.idle_close } else { 2 * limits.message_timeout };
            let limit = limit.min(limits.idle_close);
            let last = Duration::from_millis(self.last_millis.load(Ordering::Relaxed));
            let deadline = self.began + last + limit;
            if deadline <= Instant::now() {
                return;
            }
            time::sleep_until(deadline).await;
        }
    }
}

/// Reads what is there, at least one byte unless the stream has ended, and hands it over.
///
/// The buffer belongs to the thread, not to the connection: twenty thousand idle connections hold
/// no buffers.
async fn read_some<R: AsyncRead + Unpin>(
    reader: &mut R,
    mut take: impl FnMut(&[u8]),
) -> io::Result<usize> {
    thread_local! {
        static BUFFER: std::cell::RefCell<Vec<u8>> = std::cell::RefCell::new(vec![0; READ_BYTES]);
    }
    poll_fn(|context| {
        BUFFER.with_borrow_mut(|buffer| {
            let mut buffer = ReadBuf::new(buffer);
            match Pin::new(&mut *reader).poll_read(context, &mut buffer) {
                Poll::Ready(Ok(())) => {
                    take(buffer.filled());
                    Poll::Ready(Ok(buffer.filled().len()))
                }
                Poll::Ready(Err(error)) => Poll::Ready(Err(error)),
                Poll::Pending => Poll::Pending,
            }
        })
    })
    .await
}
