//! TLS over a connection to an NBD server.

use std::net::TcpStream;
use std::time::Duration;

use super::dial::DialOptions;
use super::stream::TlsLine;
use crate::error::{Error, Result};
use crate::image::nbd::stream::{Duplex, Secure};

impl Secure for DialOptions {
    fn secure(&self, socket: TcpStream, host: &str, slice: Duration) -> Result<Duplex> {
        let failed = |cause| Error::io("set up TLS", cause);
        let timed = socket.try_clone().map_err(failed)?;
        let mut line = TlsLine::over(socket, host, self)?;
        timed.set_read_timeout(Some(slice)).map_err(failed)?;
        timed.set_write_timeout(Some(SEND_LIMIT)).map_err(failed)?;
        let (reader, writer) = line.streams()?;
        Ok(Duplex {
            reader: Box::new(reader),
            writer: Box::new(writer),
            guard: Some(Box::new(line)),
        })
    }
}

/// How long sending a request may take.
const SEND_LIMIT: Duration = Duration::from_secs(60);
