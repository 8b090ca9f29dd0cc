//! HTTP/1.x for the WSGI server: bytes of a connection become environs and bodies, and answers become bytes.
//!
//! `httparse` finds the parts of a head; what they mean for the framing is decided here, strictly, because what two
//! servers on the way read differently lets one request hide in another: a length and chunks, two lengths, a line that
//! ends with a bare LF, a space before a colon are all refused.
//!
//! **Invariants**
//!
//! * `at <= buf.len()`; the bytes before `at` are done with. Nothing of the next head is looked at before the body of
//!   the request before is at its end.
//! * The state is taken out of its lock for a call, and put back after it: Python is called without a lock, and whoever
//!   finds no state is a second user.
//! * An error is a `ValueError` of a status and a reason. After one there is no telling where the next request begins:
//!   the connection has to be closed.

use crate::errors::misuse;
use pyo3::exceptions::{PyTypeError, PyValueError};
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyDict, PyList, PyString, PyTuple};

/// Longest line that begins a chunk, with its extensions, which are skipped.
const CHUNK_LINE_MAX: usize = 1024;
/// What an idle connection's buffer may keep.
const SPARE_MAX: usize = 4096;

/// What may be refused for its size alone. Bytes, but for `headers`.
struct Limits {
    head: usize,
    line: usize,
    headers: usize,
    body: u64,
}

/// What comes of the present request after its head.
#[derive(Clone, Copy)]
enum Body {
    Ended,
    /// So many bytes.
    Length(u64),
    /// A line with a chunk's size.
    ChunkSize,
    /// So many bytes of a chunk.
    Chunk(u64),
    /// The line end after a chunk.
    ChunkEnd,
    /// Lines after the last chunk; so many bytes of them are read.
    Trailers(usize),
}

struct State {
    buf: Vec<u8>,
    at: usize,
    /// How far no end of a head was found, counted from `at`.
    scanned: usize,
    /// How long the head was when it was last parsed for early refusal.
    tried: usize,
    body: Body,
    /// Bytes of chunks so far.
    chunked: u64,
}

/// What a head says about what follows it.
struct Framing {
    body: Body,
    keep_alive: bool,
    expects: bool,
}

type Refusal = (u16, &'static str);
/// Environ, length of the body or -1 for chunks, whether the connection may stay, whether 100 Continue is expected.
type Head<'py> = (Bound<'py, PyDict>, i64, bool, bool);

fn refused((status, reason): Refusal) -> PyErr {
    PyValueError::new_err((status, reason))
}

/// The requests of one connection: `feed` it what was received, and take out heads and bodies in turn.
#[pyclass(name = "_HttpReader", module = "goslings._goslings", frozen)]
pub(crate) struct HttpReader {
    limits: Limits,
    #[expect(clippy::disallowed_types, reason = "a leaf, held for a move")]
    state: std::sync::Mutex<Option<Box<State>>>,
}

#[pymethods]
impl HttpReader {
    #[new]
    fn new(head_limit: usize, line_limit: usize, header_count: usize, body_limit: u64) -> HttpReader {
        let state = State { buf: Vec::new(), at: 0, scanned: 0, tried: 0, body: Body::Ended, chunked: 0 };
        HttpReader {
            limits: Limits { head: head_limit, line: line_limit, headers: header_count, body: body_limit },
            #[expect(clippy::disallowed_types, reason = "a leaf, held for a move")]
            state: std::sync::Mutex::new(Some(Box::new(state))),
        }
    }

    /// Adds what was received.
    fn feed(&self, data: &[u8]) -> PyResult<()> {
        self.with(|state| {
            state.feed(data);
            Ok(())
        })
    }

    /// The next head as a WSGI environ made from `base`; None: more has to be fed first.
    ///
    /// Returns (environ, length of the body or -1 for chunks, whether the connection may be kept, whether the client
    /// waits for 100 Continue). Raises ValueError(status, reason).
    fn head<'py>(&self, py: Python<'py>, base: &Bound<'py, PyDict>) -> PyResult<Option<Head<'py>>> {
        self.with(|state| {
            if !matches!(state.body, Body::Ended) {
                return Err(misuse("the body before has not been read"));
            }
            match state.find_head(&self.limits).map_err(refused)? {
                Some(end) => state.take_head(py, end, &self.limits, base).map(Some),
                None => Ok(None),
            }
        })
    }

    /// Bytes of the present body, at most `most`; b"" at its end; None: more has to be fed first.
    ///
    /// Raises ValueError(status, reason).
    fn body<'py>(&self, py: Python<'py>, most: usize) -> PyResult<Option<Bound<'py, PyBytes>>> {
        self.with(|state| match state.body {
            Body::Ended => Ok(Some(PyBytes::new(py, b""))),
            Body::Length(left) => {
                let most = most.min(usize::try_from(left).unwrap_or(usize::MAX));
                let end = state.buf.len().min(state.at.saturating_add(most));
                if end == state.at {
                    return Ok(None);
                }
                let bytes = PyBytes::new(py, &state.buf[state.at..end]);
                let left = left - (end - state.at) as u64;
                state.body = if left == 0 { Body::Ended } else { Body::Length(left) };
                state.advance(end - state.at);
                Ok(Some(bytes))
            }
            _ => {
                let mut out = Vec::new();
                state.unchunk(most, &mut out, &self.limits).map_err(refused)?;
                let ended = matches!(state.body, Body::Ended);
                Ok((ended || !out.is_empty()).then(|| PyBytes::new(py, &out)))
            }
        })
    }

    /// Whether the present body is at its end.
    #[getter]
    fn ended(&self) -> PyResult<bool> {
        self.with(|state| Ok(matches!(state.body, Body::Ended)))
    }

    /// How many bytes were fed and not taken.
    #[getter]
    fn pending(&self) -> PyResult<usize> {
        self.with(|state| Ok(state.buf.len() - state.at))
    }
}

impl HttpReader {
    fn lock(&self) -> std::sync::MutexGuard<'_, Option<Box<State>>> {
        self.state.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    /// Calls `f` with the state, and without the lock.
    fn with<R>(&self, f: impl FnOnce(&mut State) -> PyResult<R>) -> PyResult<R> {
        let taken = self.lock().take();
        let mut state = taken.ok_or_else(|| misuse("one connection is read by two at once"))?;
        let result = f(&mut state);
        *self.lock() = Some(state);
        result
    }
}

impl State {
    fn feed(&mut self, data: &[u8]) {
        if self.at > 0 {
            self.buf.drain(..self.at);
            self.at = 0;
        }
        self.buf.extend_from_slice(data);
    }

    fn advance(&mut self, count: usize) {
        self.at += count;
        if self.at == self.buf.len() {
            self.at = 0;
            self.buf.clear();
            if self.buf.capacity() > SPARE_MAX {
                self.buf = Vec::new();
            }
        }
    }

    /// Where the head that begins at `at` ends, counted from there; None if that has not come.
    fn find_head(&mut self, limits: &Limits) -> Result<Option<usize>, Refusal> {
        // Empty lines before a request are passed over (RFC 9112, 2.2).
        while self.scanned == 0 && self.buf[self.at..].starts_with(b"\r\n") {
            self.advance(2);
        }
        let data = &self.buf[self.at..];
        let from = self.scanned.saturating_sub(3);
        let end = data[from..].windows(4).position(|four| four == b"\r\n\r\n").map(|found| from + found + 4);
        let seen = end.unwrap_or(data.len());
        let line = data[..seen.min(limits.line + 2)].iter().position(|&byte| byte == b'\n');
        if line.is_none() && seen > limits.line {
            return Err((414, "the request line is too long"));
        }
        if seen > limits.head {
            return Err((431, "the headers are too long"));
        }
        if end.is_none() {
            self.scanned = data.len();
            // What is wrong at its beginning is refused at once. Whenever the head has doubled: linear in all.
            if data.len() >= 2 * self.tried && !data.is_empty() {
                self.tried = data.len();
                strict_lines(data)?;
                let mut headers = vec![httparse::EMPTY_HEADER; limits.headers];
                httparse::Request::new(&mut headers).parse(data).map_err(|error| reason(error, data))?;
            }
        }
        Ok(end)
    }

    /// Parses the head of `end` bytes and turns to what follows it.
    fn take_head<'py>(
        &mut self,
        py: Python<'py>,
        end: usize,
        limits: &Limits,
        base: &Bound<'py, PyDict>,
    ) -> PyResult<Head<'py>> {
        let data = &self.buf[self.at..self.at + end];
        strict_lines(data).map_err(refused)?;
        let mut headers = vec![httparse::EMPTY_HEADER; limits.headers];
        let mut request = httparse::Request::new(&mut headers);
        match request.parse(data) {
            Ok(httparse::Status::Complete(length)) if length == end => {}
            Ok(_) => return Err(refused((400, "malformed request"))),
            Err(error) => return Err(refused(reason(error, data))),
        }
        let minor = request.version.unwrap_or(0);
        let framing = framing(request.headers, minor, limits).map_err(refused)?;
        let environ = base.copy()?;
        let target = request.path.unwrap_or("");
        request_line(&environ, request.method.unwrap_or(""), target, minor)?;
        header_variables(&environ, request.headers)?;
        if let Some(authority) = authority(target) {
            environ.set_item(intern!(py, "HTTP_HOST"), authority)?;
        }
        let length = match framing.body {
            Body::Length(length) => length.cast_signed(),
            Body::Ended => 0,
            _ => -1,
        };
        self.advance(end);
        (self.scanned, self.tried, self.chunked, self.body) = (0, 0, 0, framing.body);
        Ok((environ, length, framing.keep_alive, framing.expects))
    }

    /// Moves bytes out of chunks until `out` has `most`, the body ends, or there are no more.
    fn unchunk(&mut self, most: usize, out: &mut Vec<u8>, limits: &Limits) -> Result<(), Refusal> {
        loop {
            let data = &self.buf[self.at..];
            let (taken, next) = match self.body {
                Body::ChunkSize => {
                    match crlf_line(data, CHUNK_LINE_MAX, (400, "a chunk's line is too long"))? {
                        None => return Ok(()),
                        Some(line) => match chunk_size(line).ok_or((400, "malformed chunk size"))? {
                            0 => (line.len() + 2, Body::Trailers(0)),
                            size => {
                                let total = self.chunked.checked_add(size);
                                self.chunked = total.ok_or((413, "the body is too large"))?;
                                if self.chunked > limits.body {
                                    return Err((413, "the body is too large"));
                                }
                                (line.len() + 2, Body::Chunk(size))
                            }
                        },
                    }
                }
                Body::Chunk(size) => {
                    let room = usize::try_from(size).unwrap_or(usize::MAX).min(most - out.len());
                    let count = room.min(data.len());
                    if count == 0 {
                        return Ok(());
                    }
                    out.extend_from_slice(&data[..count]);
                    let left = size - count as u64;
                    (count, if left == 0 { Body::ChunkEnd } else { Body::Chunk(left) })
                }
                Body::ChunkEnd => match data {
                    [b'\r', b'\n', ..] => (2, Body::ChunkSize),
                    [] | [b'\r'] => return Ok(()),
                    // What came before is given out first.
                    _ if !out.is_empty() => return Ok(()),
                    _ => return Err((400, "a chunk is longer than it says")),
                },
                Body::Trailers(read) => {
                    match crlf_line(data, limits.head - read, (431, "the trailers are too long"))? {
                        None => return Ok(()),
                        Some(b"") => (2, Body::Ended),
                        Some(line) => {
                            if !trailer(line) {
                                return Err((400, "malformed trailer"));
                            }
                            (line.len() + 2, Body::Trailers(limits.head.min(read + line.len() + 2)))
                        }
                    }
                }
                Body::Ended | Body::Length(_) => return Ok(()),
            };
            self.body = next;
            self.advance(taken);
        }
    }
}

/// Why the head was refused. `httparse` does not tell a version that is none from one that it does not know.
fn reason(error: httparse::Error, data: &[u8]) -> Refusal {
    match error {
        httparse::Error::TooManyHeaders => (431, "too many headers"),
        httparse::Error::Version if other_version(data) => (505, "HTTP/1.1 is spoken here"),
        httparse::Error::HeaderName | httparse::Error::HeaderValue => (400, "malformed header"),
        _ => (400, "malformed request line"),
    }
}

/// Whether the first line ends with a version of HTTP.
fn other_version(data: &[u8]) -> bool {
    let line = data.split(|&byte| byte == b'\r' || byte == b'\n').next().unwrap_or(b"");
    let last = line.rsplit(|&byte| byte == b' ').next().unwrap_or(b"");
    match last.strip_prefix(b"HTTP/") {
        Some([major, b'.', minor]) => major.is_ascii_digit() && minor.is_ascii_digit(),
        _ => false,
    }
}

/// Lines end with CR LF, and there is no other CR or LF. `httparse` would take a bare LF for a line end, too.
fn strict_lines(data: &[u8]) -> Result<(), Refusal> {
    let mut before = 0;
    for &byte in data {
        if (byte == b'\n') != (before == b'\r') {
            return Err((400, "a line must end with CR LF"));
        }
        before = byte;
    }
    Ok(())
}

/// The line at the beginning of `data`, without its CR LF; None if its end has not come.
fn crlf_line(data: &[u8], most: usize, too_long: Refusal) -> Result<Option<&[u8]>, Refusal> {
    match data.iter().take(most + 2).position(|&byte| byte == b'\n') {
        Some(end) if end > 0 && data[end - 1] == b'\r' && !data[..end - 1].contains(&b'\r') => {
            Ok(Some(&data[..end - 1]))
        }
        Some(_) => Err((400, "a line must end with CR LF")),
        None if data.len() > most => Err(too_long),
        None => Ok(None),
    }
}

/// The number before a chunk's extensions.
fn chunk_size(line: &[u8]) -> Option<u64> {
    let digits = line.iter().take_while(|byte| byte.is_ascii_hexdigit()).count();
    let rest = line[digits..].trim_ascii_start();
    if digits == 0
        || digits > 15
        || !(rest.is_empty() || rest[0] == b';')
        || rest.iter().any(|&byte| control(byte))
    {
        return None;
    }
    u64::from_str_radix(str::from_utf8(&line[..digits]).ok()?, 16).ok()
}

fn control(byte: u8) -> bool {
    (byte < 0x20 && byte != b'\t') || byte == 0x7f
}

fn token(bytes: &[u8]) -> bool {
    let special = |byte: u8| b"!#$%&'*+-.^_`|~".contains(&byte);
    !bytes.is_empty() && bytes.iter().all(|&byte| byte.is_ascii_alphanumeric() || special(byte))
}

/// Whether it is `name: value`. Trailers are read and forgotten: nobody may change a request by its end.
fn trailer(line: &[u8]) -> bool {
    match line.iter().position(|&byte| byte == b':') {
        Some(colon) => token(&line[..colon]) && !line[colon..].iter().any(|&byte| control(byte)),
        None => false,
    }
}

fn elements(value: &[u8]) -> impl Iterator<Item = &[u8]> {
    value.split(|&byte| byte == b',').map(<[u8]>::trim_ascii)
}

/// What the headers say about the body and the connection (RFC 9112, 6 and 9.3).
fn framing(headers: &[httparse::Header<'_>], minor: u8, limits: &Limits) -> Result<Framing, Refusal> {
    let (mut length, mut chunked, mut hosts, mut expects) = (None, false, 0, false);
    let mut keep_alive = minor == 1;
    for header in headers {
        let (name, value) = (header.name, header.value);
        if name.eq_ignore_ascii_case("content-length") {
            if length.is_some() {
                return Err((400, "two Content-Length headers"));
            }
            length = Some(content_length(value).ok_or((400, "malformed Content-Length"))?);
        } else if name.eq_ignore_ascii_case("transfer-encoding") {
            if chunked {
                return Err((400, "two Transfer-Encoding headers"));
            }
            if !value.eq_ignore_ascii_case(b"chunked") {
                let known =
                    elements(value).all(|coding| token(coding.split(|&b| b == b';').next().unwrap_or(b"")));
                return Err(if known {
                    (501, "this Transfer-Encoding is not implemented")
                } else {
                    (400, "malformed Transfer-Encoding")
                });
            }
            chunked = true;
        } else if name.eq_ignore_ascii_case("host") {
            hosts += 1;
            if value.iter().any(|&byte| byte <= b' ' || byte >= 0x7f || b"/?#@\\".contains(&byte)) {
                return Err((400, "malformed Host"));
            }
        } else if name.eq_ignore_ascii_case("connection") {
            for option in elements(value) {
                if option.eq_ignore_ascii_case(b"close") {
                    keep_alive = false;
                } else if minor == 0 && option.eq_ignore_ascii_case(b"keep-alive") {
                    keep_alive = true;
                }
            }
        } else if name.eq_ignore_ascii_case("expect") && minor == 1 {
            if !value.eq_ignore_ascii_case(b"100-continue") {
                return Err((417, "only 100-continue can be expected"));
            }
            expects = true;
        }
    }
    if chunked && length.is_some() {
        return Err((400, "both Content-Length and Transfer-Encoding"));
    }
    if chunked && minor == 0 {
        return Err((400, "Transfer-Encoding in HTTP/1.0"));
    }
    if hosts > 1 || (hosts == 0 && minor == 1) {
        return Err((400, "there must be one Host header"));
    }
    let body = match length {
        _ if chunked => Body::ChunkSize,
        Some(length) if length > limits.body => return Err((413, "the body is too large")),
        Some(length) if length > 0 => Body::Length(length),
        _ => Body::Ended,
    };
    Ok(Framing { body, keep_alive, expects: expects && !matches!(body, Body::Ended) })
}

fn content_length(value: &[u8]) -> Option<u64> {
    let digits = !value.is_empty() && value.len() <= 18 && value.iter().all(u8::is_ascii_digit);
    if digits { str::from_utf8(value).ok()?.parse().ok() } else { None }
}

/// Bytes as a WSGI string: each byte a character (PEP 3333).
fn latin1<'py>(py: Python<'py>, bytes: &[u8]) -> Bound<'py, PyString> {
    match str::from_utf8(bytes) {
        Ok(text) if text.is_ascii() => PyString::new(py, text),
        _ => PyString::new(py, &bytes.iter().map(|&byte| char::from(byte)).collect::<String>()),
    }
}

/// `%41` is `A`. What is no escape stays as it is.
fn unquoted(path: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(path.len());
    let mut at = 0;
    while at < path.len() {
        let digit = |offset: usize| path.get(at + offset).and_then(|&byte| char::from(byte).to_digit(16));
        match (path[at], digit(1), digit(2)) {
            (b'%', Some(high), Some(low)) => {
                out.push(u8::try_from(high * 16 + low).unwrap_or(b'%'));
                at += 3;
            }
            (byte, ..) => {
                out.push(byte);
                at += 1;
            }
        }
    }
    out
}

/// The host of a target in absolute form, as a client sends it to a proxy.
fn authority(target: &str) -> Option<&str> {
    let scheme = target.find("://")?;
    if target.starts_with('/') || !matches!(&target[..scheme], "http" | "https") {
        return None;
    }
    let rest = &target[scheme + 3..];
    Some(&rest[..rest.find(['/', '?']).unwrap_or(rest.len())])
}

/// Sets what the first line of a request says.
fn request_line(environ: &Bound<'_, PyDict>, method: &str, target: &str, minor: u8) -> PyResult<()> {
    let py = environ.py();
    if method == "CONNECT" {
        return Err(refused((501, "CONNECT is not implemented")));
    }
    let local = match authority(target) {
        Some(host) => {
            let at = target.find("://").map_or(0, |scheme| scheme + 3 + host.len());
            if host.is_empty() || host.contains(['@', '\\', '#']) {
                return Err(refused((400, "malformed host in the request line")));
            }
            &target[at..]
        }
        None => target,
    };
    let (path, query) = local.split_once('?').unwrap_or((local, ""));
    let asterisk = path == "*" && method == "OPTIONS";
    let whole = path.starts_with('/') || asterisk || (path.is_empty() && local.len() != target.len());
    if !whole || local.contains('#') {
        return Err(refused((400, "malformed request target")));
    }
    environ.set_item(intern!(py, "REQUEST_METHOD"), method)?;
    let path = if path.is_empty() { "/" } else { path };
    let path =
        if path.contains('%') { latin1(py, &unquoted(path.as_bytes())) } else { latin1(py, path.as_bytes()) };
    environ.set_item(intern!(py, "PATH_INFO"), path)?;
    environ.set_item(intern!(py, "QUERY_STRING"), latin1(py, query.as_bytes()))?;
    environ.set_item(intern!(py, "REQUEST_URI"), latin1(py, target.as_bytes()))?;
    let protocol = if minor == 0 { intern!(py, "HTTP/1.0") } else { intern!(py, "HTTP/1.1") };
    environ.set_item(intern!(py, "SERVER_PROTOCOL"), protocol)
}

/// Sets a variable for each header. A name with an underscore is dropped: it would pass for one with a hyphen.
fn header_variables(environ: &Bound<'_, PyDict>, headers: &[httparse::Header<'_>]) -> PyResult<()> {
    let py = environ.py();
    let mut name = String::with_capacity(32);
    for header in headers {
        if header.name.contains('_') {
            continue;
        }
        name.clear();
        if !header.name.eq_ignore_ascii_case("content-type")
            && !header.name.eq_ignore_ascii_case("content-length")
        {
            name.push_str("HTTP_");
        }
        name.extend(header.name.chars().map(|c| if c == '-' { '_' } else { c.to_ascii_uppercase() }));
        let key = PyString::new(py, &name);
        let value = latin1(py, header.value);
        match environ.get_item(&key)? {
            None => environ.set_item(key, value)?,
            Some(before) => {
                let comma = if name == "HTTP_COOKIE" { "; " } else { "," };
                environ.set_item(key, before.add(comma)?.add(value)?)?;
            }
        }
    }
    Ok(())
}

/// The head of an answer, without the empty line at its end.
///
/// Returns (bytes, Content-Length or -1, whether the app wants the connection closed, whether it set Date, whether it
/// set Server). Headers that belong to the server (Connection, Transfer-Encoding …) are left out. Raises TypeError and
/// ValueError for what PEP 3333 forbids, so that no value can begin a header or an answer of its own.
#[pyfunction]
#[pyo3(name = "_http_head")]
pub(crate) fn response_head<'py>(
    py: Python<'py>,
    status: &Bound<'py, PyString>,
    headers: &Bound<'py, PyList>,
) -> PyResult<(Bound<'py, PyBytes>, i64, bool, bool, bool)> {
    let mut out = Vec::with_capacity(256);
    out.extend_from_slice(b"HTTP/1.1 ");
    push_latin1(&mut out, status.to_str()?, "the status")?;
    let text = &out[9..];
    if text.len() < 4 || !text[..3].iter().all(u8::is_ascii_digit) || text[3] != b' ' || text[0] < b'2' {
        return Err(PyValueError::new_err(
            "the status must be three digits from 200 on, a space and a reason",
        ));
    }
    out.extend_from_slice(b"\r\n");
    let (mut length, mut close, mut date, mut server) = (-1, false, false, false);
    for item in headers.iter() {
        let pair =
            item.cast_into::<PyTuple>().map_err(|_| PyTypeError::new_err("a header must be a tuple"))?;
        let (name, value): (Bound<'py, PyString>, Bound<'py, PyString>) = pair.extract()?;
        let (name, value) = (name.to_str()?, value.to_str()?);
        if !token(name.as_bytes()) {
            return Err(PyValueError::new_err(format!("{name:?} is no name of a header")));
        }
        match name.to_ascii_lowercase().as_str() {
            "connection" => {
                close |= elements(value.as_bytes()).any(|option| option.eq_ignore_ascii_case(b"close"));
                continue;
            }
            "transfer-encoding" | "keep-alive" | "te" | "trailer" | "upgrade" | "proxy-connection" => {
                continue;
            }
            "content-length" => {
                let given = content_length(value.trim().as_bytes()).filter(|_| length == -1);
                length = given
                    .ok_or_else(|| PyValueError::new_err("malformed or second Content-Length"))?
                    .cast_signed();
            }
            "date" => date = true,
            "server" => server = true,
            _ => {}
        }
        out.extend_from_slice(name.as_bytes());
        out.extend_from_slice(b": ");
        push_latin1(&mut out, value, name)?;
        out.extend_from_slice(b"\r\n");
    }
    Ok((PyBytes::new(py, &out), length, close, date, server))
}

/// Adds a WSGI string, which has a byte in each character and no line end.
fn push_latin1(out: &mut Vec<u8>, text: &str, what: &str) -> PyResult<()> {
    for character in text.chars() {
        match u8::try_from(u32::from(character)) {
            Ok(byte) if !control(byte) => out.push(byte),
            _ => {
                return Err(PyValueError::new_err(format!(
                    "{what} has a character that HTTP does not allow"
                )));
            }
        }
    }
    Ok(())
}
