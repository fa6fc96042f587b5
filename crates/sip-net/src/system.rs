//! Every system call that `std` and `socket2` do not offer: `recvmmsg`, `sendmmsg`, `epoll`, some
//! options. The only file with `unsafe`: what it hands out is safe, and each block says why.
#![expect(unsafe_code, reason = "batched UDP and epoll exist only as C calls")]

use std::io;
use std::mem::{self, MaybeUninit};
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4, SocketAddrV6};
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::ptr;
use std::time::Duration;

use crate::limits::BATCH_MAX;

/// One readiness report of the kernel.
pub(crate) type EpollEvent = libc::epoll_event;

/// Readiness to read, which includes end of stream.
pub(crate) const READABLE: u32 = libc::EPOLLIN as u32;
/// Report each change once, not for as long as something is there to be read.
pub(crate) const ON_CHANGE: u32 = libc::EPOLLET as u32;
/// An error waits; reported whether asked for or not.
pub(crate) const FAILING: u32 = libc::EPOLLERR as u32;

/// A socket address in the kernel's form; large enough for both families.
#[repr(C)]
#[derive(Clone, Copy)]
union Name {
    family: libc::sa_family_t,
    v4: libc::sockaddr_in,
    v6: libc::sockaddr_in6,
}

const NAME_BYTES: libc::socklen_t = mem::size_of::<Name>() as libc::socklen_t;

/// Room for one control message with a `u32`, aligned as the kernel writes it.
#[repr(C, align(8))]
struct Control([u8; 32]);

/// What the kernel said about one received datagram.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Arrival {
    /// `None` if the kernel named no IPv4 or IPv6 source.
    pub(crate) source: Option<SocketAddr>,
    pub(crate) bytes: usize,
    /// The datagram was longer than its slot and was cut.
    pub(crate) is_cut: bool,
    /// Datagrams that this socket has dropped since it exists (`SO_RXQ_OVFL`), modulo 2³²;
    /// `None` while it has dropped nothing.
    pub(crate) dropped: Option<u32>,
}

/// Takes what is queued, at most one datagram per slot of `slot_bytes` in `arena` and at most
/// `wanted`; writes one [`Arrival`] each, in order of arrival. Never waits: an empty queue is
/// `WouldBlock`.
///
/// `recvmmsg`'s own timeout is not used: the kernel looks at it only after a datagram has arrived.
pub(crate) fn receive_batch(
    socket: BorrowedFd<'_>,
    arena: &mut [u8],
    slot_bytes: usize,
    stride: usize,
    wanted: usize,
    arrivals: &mut Vec<Arrival>,
) -> io::Result<()> {
    let mut names = [const { MaybeUninit::<Name>::uninit() }; BATCH_MAX];
    let mut controls = [const { MaybeUninit::<Control>::uninit() }; BATCH_MAX];
    let mut vectors = [const { MaybeUninit::<libc::iovec>::uninit() }; BATCH_MAX];
    let mut headers = [const { MaybeUninit::<libc::mmsghdr>::uninit() }; BATCH_MAX];
    let mut count: libc::c_uint = 0;

    let slots = arena.chunks_exact_mut(stride.max(1)).take(wanted);
    let parts = names.iter_mut().zip(&mut controls).zip(&mut vectors).zip(&mut headers);
    for (slot, (((name, control), vector), header)) in slots.zip(parts) {
        let vector = vector.write(libc::iovec {
            iov_base: slot.as_mut_ptr().cast(),
            iov_len: slot_bytes.min(slot.len()),
        });
        // SAFETY: all-zero bytes are a valid `mmsghdr`: integers and null pointers.
        let header = header.write(unsafe { mem::zeroed() });
        header.msg_hdr.msg_name = name.as_mut_ptr().cast();
        header.msg_hdr.msg_namelen = NAME_BYTES;
        header.msg_hdr.msg_iov = vector;
        header.msg_hdr.msg_iovlen = 1;
        header.msg_hdr.msg_control = control.as_mut_ptr().cast();
        header.msg_hdr.msg_controllen = mem::size_of::<Control>();
        count += 1;
    }

    // SAFETY: the first `count` headers are initialised, and every pointer in them leads to memory
    // of the stated length that outlives the call and that nothing else reads or writes meanwhile
    // (disjoint chunks of `arena`, own elements of the local arrays). The timeout is null.
    let received = unsafe {
        libc::recvmmsg(
            socket.as_raw_fd(),
            headers.as_mut_ptr().cast(),
            count,
            libc::MSG_DONTWAIT,
            ptr::null_mut(),
        )
    };
    let received = usize::try_from(received).map_err(|_| io::Error::last_os_error())?;

    for (header, name) in headers.iter().zip(&names).take(received) {
        // SAFETY: `received <= count`, and the first `count` headers were initialised above.
        let header = unsafe { header.assume_init_ref() };
        let named = header.msg_hdr.msg_namelen;
        arrivals.push(Arrival {
            // SAFETY: `read_name` looks only at bytes that `named` says the kernel has written.
            source: unsafe { read_name(name, named) },
            bytes: header.msg_len as usize,
            is_cut: header.msg_hdr.msg_flags & libc::MSG_TRUNC != 0,
            // SAFETY: the header and the control bytes it leads to were filled by the kernel.
            dropped: unsafe { read_drops(&header.msg_hdr) },
        });
    }
    Ok(())
}

/// # Safety
///
/// The kernel has written `named` bytes of `name`.
unsafe fn read_name(name: &MaybeUninit<Name>, named: libc::socklen_t) -> Option<SocketAddr> {
    let named = named as usize;
    if named < mem::size_of::<libc::sa_family_t>() {
        return None;
    }
    // SAFETY: the family is the first field of both forms and was written.
    let family = unsafe { (*name.as_ptr()).family };
    match libc::c_int::from(family) {
        libc::AF_INET if named >= mem::size_of::<libc::sockaddr_in>() => {
            // SAFETY: a complete `sockaddr_in` was written.
            let v4 = unsafe { (*name.as_ptr()).v4 };
            let ip = Ipv4Addr::from(u32::from_be(v4.sin_addr.s_addr));
            Some(SocketAddrV4::new(ip, u16::from_be(v4.sin_port)).into())
        }
        libc::AF_INET6 if named >= mem::size_of::<libc::sockaddr_in6>() => {
            // SAFETY: a complete `sockaddr_in6` was written.
            let v6 = unsafe { (*name.as_ptr()).v6 };
            let ip = Ipv6Addr::from(v6.sin6_addr.s6_addr);
            let port = u16::from_be(v6.sin6_port);
            Some(SocketAddrV6::new(ip, port, v6.sin6_flowinfo, v6.sin6_scope_id).into())
        }
        _ => None,
    }
}

/// # Safety
///
/// `header` was filled by a successful receive and its control buffer is still there.
unsafe fn read_drops(header: &libc::msghdr) -> Option<u32> {
    // SAFETY: the macros stay within `msg_controllen` bytes, which the kernel has written.
    let mut control = unsafe { libc::CMSG_FIRSTHDR(header) };
    while !control.is_null() {
        // SAFETY: not null, hence a complete header inside the control buffer.
        let (level, kind) = unsafe { ((*control).cmsg_level, (*control).cmsg_type) };
        if level == libc::SOL_SOCKET && kind == libc::SO_RXQ_OVFL {
            // SAFETY: the data of `SO_RXQ_OVFL` is one `u32`; alignment is not assumed.
            return Some(unsafe { ptr::read_unaligned(libc::CMSG_DATA(control).cast::<u32>()) });
        }
        // SAFETY: as for the first.
        control = unsafe { libc::CMSG_NXTHDR(header, control) };
    }
    None
}

/// Sends the first datagrams of `messages` (at most [`BATCH_MAX`]) and returns how many left.
///
/// `sendmmsg` stops at the first datagram that fails and reports its error only if it is the first
/// of the call. So an error here belongs to the first of `messages`, and to no other.
pub(crate) fn send_batch<'a>(
    socket: BorrowedFd<'_>,
    messages: impl Iterator<Item = (SocketAddr, &'a [u8])>,
) -> io::Result<usize> {
    let mut names = [const { MaybeUninit::<Name>::uninit() }; BATCH_MAX];
    let mut vectors = [const { MaybeUninit::<libc::iovec>::uninit() }; BATCH_MAX];
    let mut headers = [const { MaybeUninit::<libc::mmsghdr>::uninit() }; BATCH_MAX];
    let mut count: libc::c_uint = 0;

    let parts = names.iter_mut().zip(&mut vectors).zip(&mut headers);
    for ((to, bytes), ((name, vector), header)) in messages.zip(parts) {
        let name_bytes = write_name(name, to);
        let vector = vector.write(libc::iovec {
            // The kernel only reads what a send names; the type is shared with receiving.
            iov_base: bytes.as_ptr().cast_mut().cast(),
            iov_len: bytes.len(),
        });
        // SAFETY: all-zero bytes are a valid `mmsghdr`: integers and null pointers.
        let header = header.write(unsafe { mem::zeroed() });
        header.msg_hdr.msg_name = name.as_mut_ptr().cast();
        header.msg_hdr.msg_namelen = name_bytes;
        header.msg_hdr.msg_iov = vector;
        header.msg_hdr.msg_iovlen = 1;
        count += 1;
    }

    // SAFETY: the first `count` headers are initialised; their pointers lead to names and vectors
    // in the local arrays and to bytes borrowed for `'a`; a send writes only to `msg_len`.
    let sent = unsafe {
        libc::sendmmsg(
            socket.as_raw_fd(),
            headers.as_mut_ptr().cast(),
            count,
            libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL,
        )
    };
    usize::try_from(sent).map_err(|_| io::Error::last_os_error())
}

/// Writes `address` in the kernel's form and returns the length of that form.
fn write_name(name: &mut MaybeUninit<Name>, address: SocketAddr) -> libc::socklen_t {
    match address {
        SocketAddr::V4(address) => {
            name.write(Name {
                v4: libc::sockaddr_in {
                    sin_family: libc::AF_INET as libc::sa_family_t,
                    sin_port: address.port().to_be(),
                    sin_addr: libc::in_addr { s_addr: u32::from(*address.ip()).to_be() },
                    sin_zero: [0; 8],
                },
            });
            mem::size_of::<libc::sockaddr_in>() as libc::socklen_t
        }
        SocketAddr::V6(address) => {
            name.write(Name {
                v6: libc::sockaddr_in6 {
                    sin6_family: libc::AF_INET6 as libc::sa_family_t,
                    sin6_port: address.port().to_be(),
                    sin6_flowinfo: address.flowinfo(),
                    sin6_addr: libc::in6_addr { s6_addr: address.ip().octets() },
                    sin6_scope_id: address.scope_id(),
                },
            });
            mem::size_of::<libc::sockaddr_in6>() as libc::socklen_t
        }
    }
}

/// Room for the control message of one error: the error, and the address of who reported it.
#[repr(C, align(8))]
struct ErrorControl([u8; 128]);

/// What the kernel keeps about a datagram that did not arrive.
#[derive(Clone, Copy, Debug)]
pub(crate) struct QueuedError {
    /// Where the datagram was sent; `None` if the kernel named no IPv4 or IPv6 address.
    pub(crate) to: Option<SocketAddr>,
    pub(crate) kind: io::ErrorKind,
    /// The network said so (ICMP); otherwise this machine did, at sending.
    pub(crate) is_from_network: bool,
}

/// Takes the oldest error from the socket's error queue. Never waits: none is `WouldBlock`.
pub(crate) fn take_error(socket: BorrowedFd<'_>) -> io::Result<QueuedError> {
    let mut name = MaybeUninit::<Name>::uninit();
    let mut control = MaybeUninit::<ErrorControl>::uninit();
    // SAFETY: all-zero bytes are a valid `msghdr`: integers and null pointers.
    let mut header: libc::msghdr = unsafe { mem::zeroed() };
    header.msg_name = name.as_mut_ptr().cast();
    header.msg_namelen = NAME_BYTES;
    header.msg_control = control.as_mut_ptr().cast();
    header.msg_controllen = mem::size_of::<ErrorControl>();
    // SAFETY: the header's pointers lead to local memory of the stated lengths; it has no vector,
    // so the failed datagram itself is not copied.
    let taken = unsafe {
        libc::recvmsg(socket.as_raw_fd(), &raw mut header, libc::MSG_ERRQUEUE | libc::MSG_DONTWAIT)
    };
    if taken < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the kernel has filled the header, the name and the control bytes.
    let (to, error) = unsafe { (read_name(&name, header.msg_namelen), read_error(&header)) };
    let number = error.map_or(0, |error| libc::c_int::try_from(error.ee_errno).unwrap_or(0));
    let network = [libc::SO_EE_ORIGIN_ICMP, libc::SO_EE_ORIGIN_ICMP6];
    Ok(QueuedError {
        to,
        kind: io::Error::from_raw_os_error(number).kind(),
        is_from_network: error.is_some_and(|error| network.contains(&error.ee_origin)),
    })
}

/// # Safety
///
/// `header` was filled by a successful receive and its control buffer is still there.
unsafe fn read_error(header: &libc::msghdr) -> Option<libc::sock_extended_err> {
    // SAFETY: the macros stay within `msg_controllen` bytes, which the kernel has written.
    let mut control = unsafe { libc::CMSG_FIRSTHDR(header) };
    while !control.is_null() {
        // SAFETY: not null, hence a complete header inside the control buffer.
        let kind = unsafe { ((*control).cmsg_level, (*control).cmsg_type) };
        if [(libc::SOL_IP, libc::IP_RECVERR), (libc::SOL_IPV6, libc::IPV6_RECVERR)].contains(&kind)
        {
            // SAFETY: the data of both begins with one `sock_extended_err`; alignment is not
            // assumed.
            return Some(unsafe { ptr::read_unaligned(libc::CMSG_DATA(control).cast()) });
        }
        // SAFETY: as for the first.
        control = unsafe { libc::CMSG_NXTHDR(header, control) };
    }
    None
}

/// Asks the kernel to report with each datagram how many the socket has dropped so far.
pub(crate) fn report_drops(socket: BorrowedFd<'_>) -> io::Result<()> {
    set_option(socket, libc::SOL_SOCKET, libc::SO_RXQ_OVFL, 1)
}

/// Asks the kernel to keep what the network says about datagrams that were sent.
pub(crate) fn report_errors(socket: BorrowedFd<'_>, is_ipv6: bool) -> io::Result<()> {
    if is_ipv6 {
        set_option(socket, libc::SOL_IPV6, libc::IPV6_RECVERR, 1)
    } else {
        set_option(socket, libc::SOL_IP, libc::IP_RECVERR, 1)
    }
}

/// Sets the receive buffer past the system's maximum; only for root.
pub(crate) fn force_receive_buffer(socket: BorrowedFd<'_>, bytes: usize) -> io::Result<()> {
    set_option(
        socket,
        libc::SOL_SOCKET,
        libc::SO_RCVBUFFORCE,
        libc::c_int::try_from(bytes).unwrap_or(libc::c_int::MAX),
    )
}

/// Sets the send buffer past the system's maximum; only for root.
pub(crate) fn force_send_buffer(socket: BorrowedFd<'_>, bytes: usize) -> io::Result<()> {
    set_option(
        socket,
        libc::SOL_SOCKET,
        libc::SO_SNDBUFFORCE,
        libc::c_int::try_from(bytes).unwrap_or(libc::c_int::MAX),
    )
}

fn set_option(
    socket: BorrowedFd<'_>,
    level: libc::c_int,
    option: libc::c_int,
    value: libc::c_int,
) -> io::Result<()> {
    // SAFETY: the pointer and the length describe one live `c_int`.
    let outcome = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            level,
            option,
            (&raw const value).cast(),
            mem::size_of::<libc::c_int>() as libc::socklen_t,
        )
    };
    done(outcome)
}

/// Waits until `socket` takes more to send, at most `limit`.
pub(crate) fn wait_writable(socket: BorrowedFd<'_>, limit: Duration) -> io::Result<()> {
    let mut entry = libc::pollfd { fd: socket.as_raw_fd(), events: libc::POLLOUT, revents: 0 };
    // SAFETY: one entry, alive for the call.
    done(unsafe { libc::poll(&raw mut entry, 1, millis_up(limit)) })
}

/// A new `epoll` instance.
pub(crate) fn epoll_new() -> io::Result<OwnedFd> {
    // SAFETY: no pointers; a non-negative result is a new descriptor that nobody else owns.
    unsafe {
        let fd = libc::epoll_create1(libc::EPOLL_CLOEXEC);
        done(fd)?;
        Ok(OwnedFd::from_raw_fd(fd))
    }
}

/// Watches `fd` for `interest`, level-triggered unless that says [`ON_CHANGE`].
pub(crate) fn epoll_add(
    epoll: BorrowedFd<'_>,
    fd: BorrowedFd<'_>,
    interest: u32,
    token: u64,
) -> io::Result<()> {
    let mut event = EpollEvent { events: interest, u64: token };
    // SAFETY: both descriptors are open (borrowed), the event is alive for the call.
    done(unsafe {
        libc::epoll_ctl(epoll.as_raw_fd(), libc::EPOLL_CTL_ADD, fd.as_raw_fd(), &raw mut event)
    })
}

/// Stops watching `fd`.
pub(crate) fn epoll_remove(epoll: BorrowedFd<'_>, fd: BorrowedFd<'_>) -> io::Result<()> {
    // SAFETY: both descriptors are open (borrowed); a removal reads no event.
    done(unsafe {
        libc::epoll_ctl(epoll.as_raw_fd(), libc::EPOLL_CTL_DEL, fd.as_raw_fd(), ptr::null_mut())
    })
}

/// Waits for readiness; returns how many of `events` were written. `None` waits for ever.
pub(crate) fn epoll_wait(
    epoll: BorrowedFd<'_>,
    timeout: Option<Duration>,
    events: &mut [EpollEvent],
) -> io::Result<usize> {
    let capacity = libc::c_int::try_from(events.len()).unwrap_or(libc::c_int::MAX);
    let timeout = timeout.map_or(-1, millis_up);
    // SAFETY: the kernel writes at most `capacity` events into a slice that long.
    let count =
        unsafe { libc::epoll_wait(epoll.as_raw_fd(), events.as_mut_ptr(), capacity, timeout) };
    usize::try_from(count).map_err(|_| io::Error::last_os_error())
}

/// A new counter that `write` raises and `read` takes; non-blocking.
pub(crate) fn eventfd_new() -> io::Result<OwnedFd> {
    // SAFETY: no pointers; a non-negative result is a new descriptor that nobody else owns.
    unsafe {
        let fd = libc::eventfd(0, libc::EFD_CLOEXEC | libc::EFD_NONBLOCK);
        done(fd)?;
        Ok(OwnedFd::from_raw_fd(fd))
    }
}

/// Raises the number of files that this process may open to the hard limit; returns the limit in
/// force afterwards.
pub(crate) fn raise_open_files() -> io::Result<u64> {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: the kernel writes one `rlimit`.
    done(unsafe { libc::getrlimit(libc::RLIMIT_NOFILE, &raw mut limit) })?;
    limit.rlim_cur = limit.rlim_max;
    // SAFETY: the kernel reads one `rlimit`.
    done(unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &raw const limit) })?;
    Ok(limit.rlim_cur)
}

/// Whole milliseconds, rounded up: a timer must never be asked about before it is due.
fn millis_up(duration: Duration) -> libc::c_int {
    libc::c_int::try_from(duration.as_nanos().div_ceil(1_000_000)).unwrap_or(libc::c_int::MAX)
}

fn done(outcome: libc::c_int) -> io::Result<()> {
    if outcome < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_both_families_survive_the_kernels_form() {
        for text in ["127.1.2.3:5060", "[2001:db8::1]:5061"] {
            let address: SocketAddr = text.parse().expect("an address");
            let mut name = MaybeUninit::uninit();
            let bytes = write_name(&mut name, address);
            // SAFETY: `write_name` has written `bytes` bytes.
            assert_eq!(unsafe { read_name(&name, bytes) }, Some(address));
        }
    }

    #[test]
    fn timeouts_are_rounded_up() {
        assert_eq!(millis_up(Duration::ZERO), 0);
        assert_eq!(millis_up(Duration::from_micros(1)), 1);
        assert_eq!(millis_up(Duration::from_micros(1_001)), 2);
        assert_eq!(millis_up(Duration::MAX), libc::c_int::MAX);
    }
}
