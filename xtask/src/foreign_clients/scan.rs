//! What the ports take, by programs that try everything: TLS 1.3 and HTTP/2, and nothing else.

use std::{ffi::OsStr, fs, path::Path, process::Command, time::Duration};

use anyhow::{Context, Result, bail, ensure};
use paymesh_topology::Region;
use serde_json::Value;
use xtask::mesh::Mesh;

use crate::{ENTRANCE, Ended, ended};

/// How long a handshake may take, with what is said in it.
const HANDSHAKE_TIME_MAX: Duration = Duration::from_secs(20);
/// How long a scan may take.
const SCAN_TIME_MAX: Duration = Duration::from_secs(60);

/// Shakes hands with every region as `openssl s_client` does.
pub(super) async fn openssl(mesh: &Mesh, openssl: &Path) -> Result<()> {
    let authorities = mesh.credentials()?.join(paymesh_identity::AUTHORITIES_FILE);
    for name in mesh.channels().keys() {
        let region = mesh.region(name)?;
        let shake = async |options: &[&str], input: &[u8]| -> Result<Ended> {
            let mut client = Command::new(openssl);
            client.args(["s_client", "-connect", &region.grpc.to_string(), "-verify_return_error", "-CAfile"]).arg(&authorities);
            client.args(["-verify_ip", region.grpc.host()]).args(options);
            ended(client, input, HANDSHAKE_TIME_MAX).await
        };
        let good = shake(&["-tls1_3", "-alpn", "h2"], b"").await?;
        ensure!(good.success, "{name}: {}", good.text);
        for said in ["Verify return code: 0 (ok)", "ALPN protocol: h2", "New, TLSv1.3,", "Compression: NONE"] {
            good.says(said).with_context(|| name.clone())?;
        }
        for older in ["-tls1_2", "-tls1_1", "-tls1"] {
            let refused = shake(&[older, "-alpn", "h2"], b"").await?;
            ensure!(!refused.success && refused.text.contains("Cipher is (NONE)"), "{name} takes {older}: {}", refused.text);
        }
        // By the node, and not by a client that would not have asked.
        shake(&["-tls1_2", "-alpn", "h2"], b"").await?.says("alert protocol version").with_context(|| name.clone())?;
        let refused = shake(&["-tls1_3", "-alpn", "http/1.1"], b"").await?;
        ensure!(!refused.success, "{name} speaks HTTP/1.1: {}", refused.text);
        refused.says("alert no application protocol").with_context(|| name.clone())?;
        // Who does not say what it speaks gets a connection, as it may know that this is HTTP/2 (RFC 9113, section 3.3); nothing else is answered.
        let unsaid = shake(&["-tls1_3", "-ign_eof"], b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n").await?;
        unsaid.says("New, TLSv1.3,").with_context(|| name.clone())?;
        ensure!(unsaid.text.contains("No ALPN negotiated") && !unsaid.text.contains("HTTP/1."), "{name}: {}", unsaid.text);
        println!("{name}: TLS 1.3 with h2, verified; TLS 1.2 and older refused, http/1.1 refused; without ALPN nothing but HTTP/2");
    }
    Ok(())
}

/// Scans every region with sslscan.
pub(super) async fn sslscan(mesh: &Mesh, sslscan: &Path) -> Result<()> {
    for name in mesh.channels().keys() {
        let mut scan = Command::new(sslscan);
        scan.args(["--xml=-", "--no-colour", &mesh.region(name)?.grpc.to_string()]);
        let report = ended(scan, b"", SCAN_TIME_MAX).await?.succeeded().with_context(|| name.clone())?;
        only_what_is_good(&report).with_context(|| format!("{name}: {report}"))?;
        let ciphers: Vec<_> = report.lines().filter_map(|line| attribute(line.trim().strip_prefix("<cipher ")?, "cipher")).collect();
        println!("{name}: TLS 1.3 only, {}; no renegotiation, no compression", ciphers.join(", "));
    }
    Ok(())
}

/// Looks through sslscan's report, in which each finding has a line.
fn only_what_is_good(report: &str) -> Result<()> {
    let (mut protocols, mut ciphers) = (0, 0);
    for line in report.lines().map(str::trim) {
        let Some((element, _)) = line.strip_prefix('<').and_then(|rest| rest.split_once(' ')) else { continue };
        let is = |name: &str, value: &str| attribute(line, name) == Some(value);
        match element {
            "protocol" => {
                protocols += 1;
                let wanted = if is("type", "tls") && is("version", "1.3") { "1" } else { "0" };
                ensure!(is("enabled", wanted), "a protocol is offered, or is not: {line}");
            }
            // Those of TLS 1.3 (RFC 8446, appendix B.4), all of them with authentication and forward secrecy.
            "cipher" => {
                ciphers += 1;
                let good =
                    is("sslversion", "TLSv1.3") && attribute(line, "id").is_some_and(|id| ["0x1301", "0x1302", "0x1303"].contains(&id));
                ensure!(good, "a cipher that is not TLS 1.3's: {line}");
            }
            "renegotiation" | "compression" => ensure!(is("supported", "0"), "{line}"),
            "heartbleed" => ensure!(is("vulnerable", "0"), "{line}"),
            _ => {}
        }
    }
    ensure!(protocols == 6 && ciphers > 0, "{protocols} protocols and {ciphers} ciphers were looked at");
    Ok(())
}

fn attribute<'a>(element: &'a str, name: &str) -> Option<&'a str> {
    let (_, rest) = element.split_once(&format!("{name}=\""))?;
    Some(rest.split_once('"')?.0)
}

/// Scans one region with testssl.sh: protocols, kinds of ciphers, known vulnerabilities.
pub(super) async fn testssl(mesh: &Mesh, testssl: &Path, folder: &Path) -> Result<()> {
    let Region { grpc, .. } = mesh.region(ENTRANCE)?;
    let report = folder.join("testssl.json");
    let mut scan = Command::new(testssl);
    scan.args(["--quiet", "--warnings", "batch", "--color", "0", "--fast", "-p", "-s", "-U", "--jsonfile"]).arg(&report);
    scan.arg(grpc.to_string());
    // Its exit code counts what it could not look at too.
    let Ended { text, .. } = ended(scan, b"", SCAN_TIME_MAX).await?;
    let findings = fs::read_to_string(&report).with_context(|| text.clone())?;
    let findings: Vec<Value> = serde_json::from_str(&findings).with_context(|| text.clone())?;
    let of = |finding: &Value, key: &str| finding.get(key).and_then(Value::as_str).unwrap_or_default().to_owned();
    let bad: Vec<String> = findings
        .iter()
        .filter(|finding| !["OK", "INFO", "WARN", "DEBUG"].contains(&of(finding, "severity").as_str()))
        .map(|finding| format!("{}: {}: {}", of(finding, "severity"), of(finding, "id"), of(finding, "finding")))
        .collect();
    if !bad.is_empty() {
        bail!("{ENTRANCE}: {}", bad.join("; "));
    }
    for (id, wanted) in [("TLS1_3", "offered"), ("TLS1_2", "not offered"), ("TLS1_1", "not offered"), ("TLS1", "not offered")] {
        let found = findings.iter().find(|finding| of(finding, "id") == id).map(|finding| of(finding, "finding")).unwrap_or_default();
        ensure!(found.starts_with(wanted), "{ENTRANCE}: {id} is `{found}`");
    }
    let program = testssl.file_name().map(OsStr::to_string_lossy).unwrap_or_default();
    println!("{ENTRANCE}: {} findings of {program}, none of them bad", findings.len());
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::only_what_is_good;

    const GOOD: &str = r#"<?xml version="1.0" encoding="UTF-8"?>
  <protocol type="ssl" version="2" enabled="0" />
  <protocol type="ssl" version="3" enabled="0" />
  <protocol type="tls" version="1.0" enabled="0" />
  <protocol type="tls" version="1.1" enabled="0" />
  <protocol type="tls" version="1.2" enabled="0" />
  <protocol type="tls" version="1.3" enabled="1" />
  <renegotiation supported="0" secure="0" />
  <compression supported="0" />
  <cipher status="preferred" sslversion="TLSv1.3" bits="128" cipher="TLS_AES_128_GCM_SHA256" id="0x1301" strength="acceptable" />
"#;

    #[test]
    fn a_scan_passes_with_tls_1_3_alone_and_fails_with_each_other_finding() {
        only_what_is_good(GOOD).expect("a report of sslscan 2.0.7's");
        for (good, bad) in [
            (r#""1.2" enabled="0""#, r#""1.2" enabled="1""#),
            (r#""1.3" enabled="1""#, r#""1.3" enabled="0""#),
            (r#"type="ssl" version="2" enabled="0""#, ""),
            (r#"renegotiation supported="0""#, r#"renegotiation supported="1""#),
            (r#"compression supported="0""#, r#"compression supported="1""#),
            ("0x1301", "0x1304"),
            ("TLSv1.3\" bits", "TLSv1.2\" bits"),
            ("<cipher", "<group"),
        ] {
            assert!(GOOD.contains(good), "{good}");
            assert!(only_what_is_good(&GOOD.replace(good, bad)).is_err(), "{bad} instead of {good}");
        }
    }
}
