//! TCP: listening, accepting and connecting; what comes out is a byte stream for `connection`.

use std::io;
use std::net::{IpAddr, SocketAddr, TcpListener as StdTcpListener};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use sip_message::Transport;
use socket2::{Domain, Protocol, SockRef, Socket, TcpKeepalive, Type};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::time;

use crate::connections::Admitted;
use crate::limits::{ACCEPT_BACKLOG, ACCEPT_REST, KEEP_ALIVE};
use crate::stream::Shared;
use crate::stream::connection::{self, Connection};

/// A listening socket, not yet part of a runtime.
pub(super) fn listen(address: SocketAddr) -> io::Result<StdTcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    if address.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    // A process that starts again does not wait for its predecessor's closed connections.
    socket.set_reuse_address(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(ACCEPT_BACKLOG)?;
    Ok(socket.into())
}

/// Accepts for ever.
pub(super) async fn accept_all(listener: TcpListener, shared: Arc<Shared>) {
    loop {
        let (stream, remote) = match listener.accept().await {
            Ok(accepted) => accepted,
            Err(error) => {
                shared.connections.totals.accept_failures.fetch_add(1, Ordering::Relaxed);
                tracing::warn!(%error, "failed to accept a connection");
                time::sleep(ACCEPT_REST).await;
                continue;
            }
        };
        match shared.connections.admit(remote) {
            Ok(admitted) => {
                tokio::spawn(run(stream, admitted, Arc::clone(&shared)));
            }
            // Dropping the stream closes it.
            Err(refusal) => tracing::debug!(%remote, ?refusal, "connection refused"),
        }
    }
}

/// Opens a connection for which messages are already queued.
pub(super) async fn open(admitted: Admitted, shared: Arc<Shared>) {
    let limit = shared.connections.limits.connect_timeout;
    match connect(admitted.remote, shared.local_ip, limit).await {
        Ok(stream) => {
            shared.connections.totals.opened.fetch_add(1, Ordering::Relaxed);
            run(stream, admitted, shared).await;
        }
        Err(error) => {
            shared.connections.totals.connect_failures.fetch_add(1, Ordering::Relaxed);
            connection::give_up(admitted, error.kind(), &shared).await;
        }
    }
}

async fn connect(
    remote: SocketAddr,
    local_ip: Option<IpAddr>,
    limit: Duration,
) -> io::Result<TcpStream> {
    let socket = if remote.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
    if let Some(ip) = local_ip.filter(|ip| ip.is_ipv4() == remote.is_ipv4()) {
        socket.bind((ip, 0).into())?;
    }
    time::timeout(limit, socket.connect(remote)).await?
}

async fn run(stream: TcpStream, admitted: Admitted, shared: Arc<Shared>) {
    let local = match prepare(&stream, shared.connections.limits.write_timeout) {
        Ok(local) => local,
        // The peer was gone before we could look at it.
        Err(error) => return connection::give_up(admitted, error.kind(), &shared).await,
    };
    let (reader, writer) = stream.into_split();
    let Admitted { id, remote, outgoing } = admitted;
    let connection = Connection { id, transport: Transport::Tcp, local, remote, shared };
    connection.run(reader, writer, outgoing).await;
}

fn prepare(stream: &TcpStream, write_timeout: Duration) -> io::Result<SocketAddr> {
    // Messages are written whole: waiting for more only delays them.
    stream.set_nodelay(true)?;
    // Otherwise a peer that vanished is noticed after a quarter of an hour.
    let socket = SockRef::from(stream);
    socket.set_tcp_user_timeout(Some(write_timeout))?;
    socket.set_tcp_keepalive(&TcpKeepalive::new().with_time(KEEP_ALIVE))?;
    stream.local_addr()
}
