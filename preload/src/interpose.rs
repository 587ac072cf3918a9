//! The functions of the C library that are replaced: those that send, those that say who sent, those
//! that open files by name. What is not for the director goes on to the C library as it came.
//!
//! Nothing here panics, keeps a lock or remembers anything but where the C library's functions are, so
//! that threads, signal handlers and forks need no care.

#![allow(
    unsafe_code,
    reason = "the C library's functions deal in pointers; each block argues for its own"
)]

use std::ffi::{CStr, c_char, c_int, c_void};
use std::mem::{size_of, transmute_copy};
use std::os::fd::{BorrowedFd, IntoRawFd};
use std::ptr;
use std::slice;
use std::sync::atomic::{AtomicPtr, Ordering};

use libc::{FILE, iovec, mode_t, msghdr, size_t, sockaddr, sockaddr_nl, socklen_t, ssize_t};

use crate::delivery::{self, Delivery};
use crate::director::Director;
use crate::{files, genetlink};

/// A function of the C library behind the one of the same name here.
struct Real {
    name: &'static CStr,
    at: AtomicPtr<c_void>,
}

impl Real {
    const fn new(name: &'static CStr) -> Self {
        Self {
            name,
            at: AtomicPtr::new(ptr::null_mut()),
        }
    }

    fn address(&self) -> *mut c_void {
        let mut at = self.at.load(Ordering::Relaxed);
        if at.is_null() {
            // SAFETY: the name ends with a NUL. Two threads find the same.
            at = unsafe { libc::dlsym(libc::RTLD_NEXT, self.name.as_ptr()) };
            self.at.store(at, Ordering::Relaxed);
        }
        at
    }

    /// As `F`; `None` if there is none.
    ///
    /// # Safety
    ///
    /// `F` is the type of a pointer to the function of this name.
    unsafe fn get<F: Copy>(&self) -> Option<F> {
        const { assert!(size_of::<F>() == size_of::<*mut c_void>()) };
        let at = self.address();
        // SAFETY: not null, and of the same size; that it is an `F` the caller promises.
        (!at.is_null()).then(|| unsafe { transmute_copy(&at) })
    }
}

static SENDMSG: Real = Real::new(c"sendmsg");
static SENDTO: Real = Real::new(c"sendto");
static SEND: Real = Real::new(c"send");
static RECVMSG: Real = Real::new(c"recvmsg");
static RECVFROM: Real = Real::new(c"recvfrom");
static OPEN: Real = Real::new(c"open");
static OPEN64: Real = Real::new(c"open64");
static OPENAT: Real = Real::new(c"openat");
static OPENAT64: Real = Real::new(c"openat64");
static FOPEN: Real = Real::new(c"fopen");
static FOPEN64: Real = Real::new(c"fopen64");

/// When the library is loaded, because to look them up is not for signal handlers.
#[used]
#[unsafe(link_section = ".init_array")]
static AT_LOAD: extern "C" fn() = look_up;

extern "C" fn look_up() {
    let all = [
        &SENDMSG, &SENDTO, &SEND, &RECVMSG, &RECVFROM, &OPEN, &OPEN64, &OPENAT, &OPENAT64, &FOPEN,
        &FOPEN64,
    ];
    for real in all {
        real.address();
    }
}

fn set_errno(errno: c_int) {
    // SAFETY: the C library's pointer to this thread's errno is good while the thread is.
    unsafe { *libc::__errno_location() = errno };
}

fn errno() -> c_int {
    // SAFETY: as above.
    unsafe { *libc::__errno_location() }
}

/// For a function that the C library does not have.
fn missing<T: From<i8>>() -> T {
    set_errno(libc::ENOSYS);
    T::from(-1)
}

/// What a function returns that sent `len` bytes, or could not; success leaves errno alone.
fn outcome(len: usize, before: c_int, done: Result<(), c_int>) -> ssize_t {
    match done {
        Ok(()) => {
            set_errno(before);
            len.cast_signed()
        }
        Err(errno) => {
            set_errno(errno);
            -1
        }
    }
}

// ---- what is sent --------------------------------------------------------------------------------

/// The outcome, if what is sent on `fd` is for the director.
fn served(fd: c_int, datagram: &[u8]) -> Option<ssize_t> {
    if !genetlink::is_ours(datagram) {
        return None;
    }
    let before = errno();
    if !is_generic_netlink(fd) {
        set_errno(before);
        return None;
    }
    // SAFETY: the program has it open, and is in a call with it until this returns.
    let program = unsafe { BorrowedFd::borrow_raw(fd) };
    let done = (|| {
        let delivery = Delivery::to(program)?;
        let mut director = Director::default();
        let mut ask = |request: &_| director.ask(request);
        delivery.send(&genetlink::answered(datagram, delivery.port(), &mut ask))
    })();
    Some(outcome(
        datagram.len(),
        before,
        done.map_err(|errno| errno as c_int),
    ))
}

fn is_generic_netlink(fd: c_int) -> bool {
    let option = |name| {
        let mut value: c_int = -1;
        let mut len: socklen_t = c_int::BITS / 8;
        // SAFETY: room for one number, and its size.
        let rc = unsafe {
            libc::getsockopt(
                fd,
                libc::SOL_SOCKET,
                name,
                (&raw mut value).cast(),
                &raw mut len,
            )
        };
        (rc == 0).then_some(value)
    };
    option(libc::SO_DOMAIN) == Some(libc::AF_NETLINK)
        && option(libc::SO_PROTOCOL) == Some(libc::NETLINK_GENERIC)
}

/// The bytes at `at`, as a system call would read them.
///
/// # Safety
///
/// At `at` are `len` bytes, or it is null, or there cannot be so many.
unsafe fn bytes<'a>(at: *const c_void, len: size_t) -> &'a [u8] {
    if at.is_null() || isize::try_from(len).is_err() {
        return &[];
    }
    // SAFETY: as the caller promises.
    unsafe { slice::from_raw_parts(at.cast(), len) }
}

/// What a message is put together from, if it begins as one does that may be for the director.
///
/// # Safety
///
/// `message` is null, or as sendmsg(2) wants it.
unsafe fn gathered(message: *const msghdr) -> Option<Vec<u8>> {
    // SAFETY: null, or one that can be read, as the caller promises.
    let message = unsafe { message.as_ref() }?;
    if message.msg_iov.is_null() {
        return None;
    }
    // SAFETY: so many are there, as the caller promises.
    let parts: &[iovec] = unsafe { slice::from_raw_parts(message.msg_iov, message.msg_iovlen) };
    // SAFETY: each names bytes that can be read, as the caller promises.
    let part = |part: &iovec| unsafe { bytes(part.iov_base, part.iov_len) };
    let begins_so = genetlink::may_be_ours(parts.first().map(part)?);
    begins_so.then(|| parts.iter().flat_map(part).copied().collect())
}

/// sendmsg(2)
///
/// # Safety
///
/// As the C library's.
#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn sendmsg(
    fd: c_int,
    message: *const msghdr,
    flags: c_int,
) -> ssize_t {
    type Function = unsafe extern "C" fn(c_int, *const msghdr, c_int) -> ssize_t;
    // SAFETY: the message is as sendmsg wants it.
    let datagram = unsafe { gathered(message) };
    if let Some(outcome) = datagram.and_then(|datagram| served(fd, &datagram)) {
        return outcome;
    }
    // SAFETY: the type is sendmsg's, the arguments are the program's.
    unsafe {
        SENDMSG
            .get::<Function>()
            .map_or_else(missing, |real| real(fd, message, flags))
    }
}

/// sendto(2)
///
/// # Safety
///
/// As the C library's.
#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn sendto(
    fd: c_int,
    at: *const c_void,
    len: size_t,
    flags: c_int,
    to: *const sockaddr,
    to_len: socklen_t,
) -> ssize_t {
    type Function = unsafe extern "C" fn(
        c_int,
        *const c_void,
        size_t,
        c_int,
        *const sockaddr,
        socklen_t,
    ) -> ssize_t;
    // SAFETY: there are the bytes to be sent.
    if let Some(outcome) = served(fd, unsafe { bytes(at, len) }) {
        return outcome;
    }
    // SAFETY: the type is sendto's, the arguments are the program's.
    unsafe {
        SENDTO
            .get::<Function>()
            .map_or_else(missing, |real| real(fd, at, len, flags, to, to_len))
    }
}

/// send(2)
///
/// # Safety
///
/// As the C library's.
#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn send(
    fd: c_int,
    at: *const c_void,
    len: size_t,
    flags: c_int,
) -> ssize_t {
    type Function = unsafe extern "C" fn(c_int, *const c_void, size_t, c_int) -> ssize_t;
    // SAFETY: there are the bytes to be sent.
    if let Some(outcome) = served(fd, unsafe { bytes(at, len) }) {
        return outcome;
    }
    // SAFETY: the type is send's, the arguments are the program's.
    unsafe {
        SEND.get::<Function>()
            .map_or_else(missing, |real| real(fd, at, len, flags))
    }
}

// ---- who sent what is received ---------------------------------------------------------------------

/// An answer of ours comes from the kernel, which is what careful programs look for.
///
/// # Safety
///
/// At `name` is the address of a sender, `len` bytes long, or it is null.
unsafe fn from_kernel(name: *mut c_void, len: socklen_t) {
    if name.is_null() || (len as usize) < size_of::<sockaddr_nl>() {
        return;
    }
    let name: *mut sockaddr_nl = name.cast();
    // SAFETY: long enough; wherever the program has it, and of whichever family it is.
    let mut address = unsafe { name.read_unaligned() };
    if c_int::from(address.nl_family) == libc::AF_NETLINK && delivery::is_ours(address.nl_pid) {
        address.nl_pid = 0;
        // SAFETY: where it was read from, and the program expects it written.
        unsafe { name.write_unaligned(address) };
    }
}

/// recvmsg(2)
///
/// # Safety
///
/// As the C library's.
#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn recvmsg(fd: c_int, message: *mut msghdr, flags: c_int) -> ssize_t {
    type Function = unsafe extern "C" fn(c_int, *mut msghdr, c_int) -> ssize_t;
    // SAFETY: the type is recvmsg's, the arguments are the program's.
    let got = unsafe {
        RECVMSG
            .get::<Function>()
            .map_or_else(missing, |real| real(fd, message, flags))
    };
    // SAFETY: what was received into can be read, and names its sender if anyone.
    unsafe {
        if got >= 0
            && let Some(message) = message.as_ref()
        {
            from_kernel(message.msg_name, message.msg_namelen);
        }
    }
    got
}

/// recvfrom(2)
///
/// # Safety
///
/// As the C library's.
#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn recvfrom(
    fd: c_int,
    at: *mut c_void,
    len: size_t,
    flags: c_int,
    from: *mut sockaddr,
    from_len: *mut socklen_t,
) -> ssize_t {
    type Function = unsafe extern "C" fn(
        c_int,
        *mut c_void,
        size_t,
        c_int,
        *mut sockaddr,
        *mut socklen_t,
    ) -> ssize_t;
    // SAFETY: the type is recvfrom's, the arguments are the program's.
    let got = unsafe {
        RECVFROM
            .get::<Function>()
            .map_or_else(missing, |real| real(fd, at, len, flags, from, from_len))
    };
    // SAFETY: the length is where it was written, and says how much of the sender's address is there.
    unsafe {
        if got >= 0
            && let Some(len) = from_len.as_ref()
        {
            from_kernel(from.cast(), *len);
        }
    }
    got
}

// ---- files -----------------------------------------------------------------------------------------

/// The file of this name, or why not, if it is shown from here.
///
/// # Safety
///
/// `path` is null, or ends with a NUL.
unsafe fn shown(path: *const c_char) -> Option<Result<c_int, c_int>> {
    if path.is_null() {
        return None;
    }
    // SAFETY: as the caller promises.
    if !files::is_ours(unsafe { CStr::from_ptr(path) }.to_bytes()) {
        return None;
    }
    let mut director = Director::default();
    Some(files::open(&mut |request| director.ask(request)).map(IntoRawFd::into_raw_fd))
}

fn opened(shown: Result<c_int, c_int>) -> c_int {
    shown.unwrap_or_else(|errno| {
        set_errno(errno);
        -1
    })
}

type Open = unsafe extern "C" fn(*const c_char, c_int, mode_t) -> c_int;
type OpenAt = unsafe extern "C" fn(c_int, *const c_char, c_int, mode_t) -> c_int;
type FileOpen = unsafe extern "C" fn(*const c_char, *const c_char) -> *mut FILE;

/// open(2), under either name, where a file is not shown from here.
///
/// # Safety
///
/// `real` is open or open64, whose the other arguments are.
unsafe fn open_by(real: &Real, path: *const c_char, flags: c_int, mode: mode_t) -> c_int {
    // SAFETY: as the caller promises.
    unsafe {
        match shown(path) {
            Some(file) => opened(file),
            None => real
                .get::<Open>()
                .map_or_else(missing, |real| real(path, flags, mode)),
        }
    }
}

/// As [`open_by`].
///
/// # Safety
///
/// `real` is openat or openat64, whose the other arguments are.
unsafe fn openat_by(
    real: &Real,
    folder: c_int,
    path: *const c_char,
    flags: c_int,
    mode: mode_t,
) -> c_int {
    // SAFETY: as the caller promises.
    unsafe {
        match shown(path) {
            Some(file) => opened(file),
            None => real
                .get::<OpenAt>()
                .map_or_else(missing, |real| real(folder, path, flags, mode)),
        }
    }
}

/// As [`open_by`].
///
/// # Safety
///
/// `real` is fopen or fopen64, whose the other arguments are.
unsafe fn fopen_by(real: &Real, path: *const c_char, mode: *const c_char) -> *mut FILE {
    // SAFETY: as the caller promises.
    unsafe {
        match shown(path) {
            Some(file) => stream(file, mode),
            None => (real.get::<FileOpen>()).map_or(ptr::null_mut(), |real| real(path, mode)),
        }
    }
}

/// open(2). Where a mode is not given, what stands in its place is not looked at.
///
/// # Safety
///
/// As the C library's.
#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn open(path: *const c_char, flags: c_int, mode: mode_t) -> c_int {
    // SAFETY: the path and the arguments are open's.
    unsafe { open_by(&OPEN, path, flags, mode) }
}

/// open(2) under its other name.
///
/// # Safety
///
/// As the C library's.
#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn open64(path: *const c_char, flags: c_int, mode: mode_t) -> c_int {
    // SAFETY: the path and the arguments are open's.
    unsafe { open_by(&OPEN64, path, flags, mode) }
}

/// openat(2)
///
/// # Safety
///
/// As the C library's.
#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn openat(
    folder: c_int,
    path: *const c_char,
    flags: c_int,
    mode: mode_t,
) -> c_int {
    // SAFETY: the path and the arguments are openat's.
    unsafe { openat_by(&OPENAT, folder, path, flags, mode) }
}

/// openat(2) under its other name.
///
/// # Safety
///
/// As the C library's.
#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn openat64(
    folder: c_int,
    path: *const c_char,
    flags: c_int,
    mode: mode_t,
) -> c_int {
    // SAFETY: the path and the arguments are openat's.
    unsafe { openat_by(&OPENAT64, folder, path, flags, mode) }
}

/// The stream of a file that is shown from here, or none and errno.
///
/// # Safety
///
/// `mode` is as fopen(3) wants it.
unsafe fn stream(file: Result<c_int, c_int>, mode: *const c_char) -> *mut FILE {
    match opened(file) {
        -1 => ptr::null_mut(),
        // SAFETY: open, and nobody else's.
        fd => unsafe { libc::fdopen(fd, mode) },
    }
}

/// fopen(3)
///
/// # Safety
///
/// As the C library's.
#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn fopen(path: *const c_char, mode: *const c_char) -> *mut FILE {
    // SAFETY: the path and the mode are fopen's.
    unsafe { fopen_by(&FOPEN, path, mode) }
}

/// fopen(3) under its other name.
///
/// # Safety
///
/// As the C library's.
#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn fopen64(path: *const c_char, mode: *const c_char) -> *mut FILE {
    // SAFETY: the path and the mode are fopen's.
    unsafe { fopen_by(&FOPEN64, path, mode) }
}
