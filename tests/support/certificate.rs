//! Certificates for servers of tests, by OpenSSL's program.

use std::path::PathBuf;
use std::process::{Command, Stdio};

use tempfile::TempDir;

/// A certificate of our own for localhost, and its key.
pub struct Certificate {
    pub folder: TempDir,
}

impl Certificate {
    pub fn new() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let mut openssl = Command::new("openssl");
        openssl.args([
            "req",
            "-x509",
            "-newkey",
            "rsa:2048",
            "-nodes",
            "-days",
            "2",
            "-subj",
            "/CN=localhost",
        ]);
        openssl.arg("-keyout").arg(folder.path().join("key.pem"));
        openssl.arg("-out").arg(folder.path().join("certificate.pem")).stderr(Stdio::null());
        assert!(openssl.status().expect("openssl is there").success());
        Self { folder }
    }

    pub fn certificate(&self) -> PathBuf {
        self.folder.path().join("certificate.pem")
    }

    pub fn key(&self) -> PathBuf {
        self.folder.path().join("key.pem")
    }
}
