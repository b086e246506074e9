//! A web server that is not ours, over TLS.

use std::fs;
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};

use crate::certificates::{Authority, Valid};
use crate::fixture::{COMMAND, Fixture, left_out, until};

struct Nginx {
    child: Child,
    port: u16,
}

impl Nginx {
    /// Serves the directory of a fixture; `None` where there is no such program.
    fn start(fixture: &Fixture) -> Option<Nginx> {
        let folder = fixture.path("");
        let folder = folder.to_str().unwrap();
        let authority = Authority::at(&fixture.path("ca.pem"));
        authority.sign(Path::new(folder), "server", &["localhost"], Valid::Now);
        Authority::at(&fixture.path("other.pem"));
        let port = TcpListener::bind("127.0.0.1:0")
            .unwrap()
            .local_addr()
            .unwrap()
            .port();
        let temporary: String = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
            .map(|name| format!("{name}_temp_path {folder}/tmp;"))
            .concat();
        let config = format!(
            "daemon off; pid {folder}/nginx.pid; error_log {folder}/error.log; user root;
             events {{}}
             http {{ access_log off; {temporary}
               server {{ listen 127.0.0.1:{port} ssl; root {folder};
                 ssl_certificate {folder}/server.pem; ssl_certificate_key {folder}/server.key;
                 location /old {{ return 302 /new.raw; }} }} }}"
        );
        fs::write(fixture.path("nginx.conf"), config).unwrap();
        let child = Command::new("/usr/sbin/nginx")
            .args([
                "-e",
                &format!("{folder}/error.log"),
                "-c",
                &format!("{folder}/nginx.conf"),
            ])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn();
        let Ok(child) = child else {
            left_out("nginx is not here");
            return None;
        };
        let nginx = Nginx { child, port };
        until("nginx", || TcpStream::connect(("127.0.0.1", port)).is_ok());
        Some(nginx)
    }

    fn run(&self, fixture: &Fixture, words: &str, authority: &str) -> Output {
        let words = words.replace("HOST", &format!("https://localhost:{}", self.port));
        Command::new(COMMAND)
            .current_dir(fixture.path(""))
            .args(words.split_whitespace())
            .env("SSL_CERT_FILE", fixture.path(authority))
            .output()
            .unwrap()
    }
}

impl Drop for Nginx {
    fn drop(&mut self) {
        let pid = self.child.id().to_string();
        // It ends its workers too.
        let _ = Command::new("kill").args(["-TERM", &pid]).status();
        let _ = self.child.wait();
    }
}

#[test]
fn a_disk_behind_nginx_is_read_over_tls_by_a_trusted_certificate_alone() {
    let fixture = Fixture::new();
    fixture.disk("new.raw", 3000, 1);
    let Some(nginx) = Nginx::start(&fixture) else {
        return;
    };
    fixture.disk("target.raw", 3000, 2);
    for words in [
        "sync HOST/new.raw target.raw",
        "diff HOST/old target.raw",
        "sync HOST/new.raw made.vhdx --verify all",
        "diff HOST/made.vhdx target.raw",
    ] {
        let run = nginx.run(&fixture, words, "ca.pem");
        assert!(run.status.success(), "{words}: {run:?}");
    }
    assert!(fixture.bytes("target.raw") == fixture.bytes("new.raw"));
    let run = nginx.run(&fixture, "info HOST/new.raw", "other.pem");
    let text = String::from_utf8(run.stderr).unwrap();
    assert!(
        text.contains("TLS") && text.contains("certificate"),
        "{text}"
    );
    let run = nginx.run(&fixture, "info HOST/none.raw", "ca.pem");
    assert!(String::from_utf8(run.stderr).unwrap().contains("404"));
}
