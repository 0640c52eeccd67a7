//! What the private database servers of the tests share.

use std::path::Path;
use std::process::{Command, Stdio};

/// Starts a server by way of `setpriv --pdeathsig`, so that it ends with this process.
pub fn spawn(mut command: Command) {
    // The signal of a parent's death is of the thread that started the child: one that never ends.
    std::thread::spawn(move || {
        let mut server = command.spawn().expect("setpriv is installed (util-linux)");
        let _ = server.wait();
        std::thread::park();
    });
}

/// A certificate authority `name`: its key and `name.pem`.
pub fn authority(root: &Path, name: &str) {
    openssl(
        root,
        &format!(
            "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 30 -subj /CN={name} -keyout {name}.key -out {name}.pem"
        ),
    );
}

/// A server's key and certificate for this machine, signed by the authority `ca`.
pub fn certificate(root: &Path) {
    std::fs::write(root.join("names"), "subjectAltName=IP:127.0.0.1,DNS:localhost\n").unwrap();
    openssl(
        root,
        "req -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj /CN=pos -keyout server.key -out server.csr",
    );
    openssl(
        root,
        "x509 -req -in server.csr -CA ca.pem -CAkey ca.key -CAcreateserial -days 30 -extfile names -out server.pem",
    );
}

fn openssl(root: &Path, words: &str) {
    let done = Command::new("openssl").args(words.split(' ')).current_dir(root).stderr(Stdio::null()).status();
    assert!(done.expect("openssl is installed").success(), "openssl {words}");
}
