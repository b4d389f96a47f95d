//! An app and its client in the simplest protocol that serves all loads: a request says how long it is and how long an
//! answer it wants.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::thread;

/// A request's length and the answer's, both without themselves.
const HEADER: usize = 8;
const CHUNK: usize = 64 * 1024;

/// The app: answers as many requests on a connection as come.
#[derive(Debug)]
pub struct App {
    /// Where it listens.
    pub address: SocketAddr,
}

impl App {
    /// Starts it in a thread that lives as long as the process.
    #[must_use]
    pub fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        thread::spawn(move || {
            for stream in listener.incoming() {
                let stream = stream.unwrap();
                // A connection that ends is no business of the app.
                thread::spawn(move || drop(serve(stream)));
            }
        });
        Self { address }
    }
}

fn serve(mut stream: TcpStream) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let mut chunk = vec![0; CHUNK];
    loop {
        let mut header = [0; HEADER];
        stream.read_exact(&mut header)?;
        let [a, b, c, d, answer @ ..] = header;
        receive(&mut stream, u32::from_be_bytes([a, b, c, d]), &mut chunk)?;
        send(&mut stream, u32::from_be_bytes(answer), &chunk)?;
    }
}

/// One connection to the app, direct or through sidecars.
#[derive(Debug)]
pub struct Client {
    stream: TcpStream,
    chunk: Vec<u8>,
}

impl Client {
    /// Connects.
    #[must_use]
    pub fn connect(address: SocketAddr) -> Self {
        let stream = TcpStream::connect(address).unwrap();
        stream.set_nodelay(true).unwrap();
        Self { stream, chunk: vec![0; CHUNK] }
    }

    /// Sends a request and reads the whole answer.
    pub fn ask(&mut self, request: u32, answer: u32) {
        let header = [request.to_be_bytes(), answer.to_be_bytes()].concat();
        let small = usize::try_from(request).unwrap();
        if small <= CHUNK {
            // In one write, as an app would.
            let whole = [&header, self.chunk.get(..small).unwrap()].concat();
            self.stream.write_all(&whole).unwrap();
        } else {
            self.stream.write_all(&header).unwrap();
            send(&mut self.stream, request, &self.chunk).unwrap();
        }
        receive(&mut self.stream, answer, &mut self.chunk).expect("the app answers");
    }
}

fn send(stream: &mut TcpStream, length: u32, chunk: &[u8]) -> io::Result<()> {
    let mut left = usize::try_from(length).unwrap();
    while left > 0 {
        let part = chunk.get(..left.min(chunk.len())).unwrap();
        stream.write_all(part)?;
        left -= part.len();
    }
    Ok(())
}

fn receive(stream: &mut TcpStream, length: u32, chunk: &mut [u8]) -> io::Result<()> {
    let mut left = usize::try_from(length).unwrap();
    while left > 0 {
        let most = left.min(chunk.len());
        match stream.read(chunk.get_mut(..most).unwrap())? {
            0 => return Err(io::ErrorKind::UnexpectedEof.into()),
            read => left -= read,
        }
    }
    Ok(())
}
