//! localstripe as a process.

use std::{
    env, fs,
    net::TcpListener,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

/// The version that the tests were written for.
const VERSION: &str = "1.15.10";
/// Its folder, where somebody has fetched it already: `cargo xtask test` does.
const FOLDER: &str = "PAYMESH_LOCALSTRIPE";
/// How long it may take to listen.
const START_MAX: Duration = Duration::from_secs(30);

pub(crate) struct LocalStripe {
    process: Child,
    pub(crate) port: u16,
}

impl LocalStripe {
    /// The error says why there is none.
    pub(crate) async fn start() -> Result<Self, String> {
        let packages = packages()?;
        // Taken and let go of again: it takes no open socket.
        let port = TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr()).map_err(|error| error.to_string())?.port();
        let process = Command::new("python3")
            .args(["-m", "localstripe", "--from-scratch", "--port", &port.to_string()])
            .env("PYTHONPATH", packages)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .map_err(|error| format!("python3 does not start: {error}"))?;
        let mut started = Self { process, port };
        let until = Instant::now() + START_MAX;
        while tokio::net::TcpStream::connect(("127.0.0.1", port)).await.is_err() {
            if let Ok(Some(status)) = started.process.try_wait() {
                panic!("localstripe has ended: {status}");
            }
            assert!(Instant::now() < until, "localstripe does not listen");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        Ok(started)
    }
}

impl Drop for LocalStripe {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// The folder with the packages, fetched if need be.
fn packages() -> Result<PathBuf, String> {
    if let Some(folder) = env::var_os(FOLDER).filter(|folder| !folder.is_empty()) {
        return Ok(folder.into());
    }
    let cache = Path::new(env!("CARGO_TARGET_TMPDIR"));
    let folder = cache.join(format!("localstripe-{VERSION}"));
    if folder.is_dir() {
        return Ok(folder);
    }
    // Fetched aside and moved into place whole: tests run beside each other, and may be broken off.
    let aside = cache.join(format!(".localstripe-{}-{:?}", std::process::id(), std::thread::current().id()));
    let fetched = Command::new("python3")
        .args(["-m", "pip", "install", "--quiet", "--no-input", "--disable-pip-version-check", "--target"])
        .arg(&aside)
        .arg(format!("localstripe=={VERSION}"))
        .output()
        .map_err(|error| format!("python3 does not start: {error}"))?;
    if !fetched.status.success() {
        let _ = fs::remove_dir_all(&aside);
        let words = String::from_utf8_lossy(&fetched.stderr);
        return Err(format!("pip cannot fetch it: {}", words.lines().last().unwrap_or_default()));
    }
    if fs::rename(&aside, &folder).is_err() {
        // Another test was faster.
        let _ = fs::remove_dir_all(&aside);
    }
    Ok(folder)
}
