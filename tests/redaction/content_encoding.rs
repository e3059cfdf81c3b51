//! Compressed responses: decoded where known, rejected where not, in bounded memory.

use tokio::io::AsyncReadExt;

use super::*;

/// `bytes` compressed as `/CODING` names it.
fn compressed(coding: &str, bytes: &[u8]) -> Vec<u8> {
    use async_compression::tokio::bufread::{BrotliEncoder, GzipEncoder, ZlibEncoder, ZstdEncoder};
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let mut out = Vec::new();
    let done = runtime.block_on(async {
        match coding {
            "gzip" => GzipEncoder::new(bytes).read_to_end(&mut out).await,
            "deflate" => ZlibEncoder::new(bytes).read_to_end(&mut out).await,
            "br" => BrotliEncoder::new(bytes).read_to_end(&mut out).await,
            "zstd" => ZstdEncoder::new(bytes).read_to_end(&mut out).await,
            _ => unreachable!(),
        }
    });
    done.unwrap();
    out
}

fn respond(coding: &str, body: Vec<u8>) -> Option<Response<Body>> {
    let mut answer = full_response("text/plain", body);
    answer.headers_mut().insert("content-encoding", coding.parse().ok()?);
    Some(answer)
}

#[test]
fn known_encodings_are_decoded_and_unknown_refused() {
    let fixture = fixture(|received| {
        let text = format!("key: {}\n", secret_of(received)).into_bytes();
        // The encoders need their own runtime.
        let path = received.path.clone();
        std::thread::spawn(move || match path.trim_start_matches('/') {
            "twice" => respond("gzip, br", compressed("br", &compressed("gzip", &text))),
            "compress" => respond("compress", text),
            "thrice" => respond("gzip, gzip, gzip", text),
            "lie" => respond("gzip", text),
            coding => respond(coding, compressed(coding, &text)),
        })
        .join()
        .unwrap()
    });
    for coding in ["gzip", "deflate", "br", "zstd", "twice"] {
        for accepted in
            ["Accept-Encoding;", "Accept-Encoding: identity", "Accept-Encoding: compress, gzip, br"]
        {
            let answer = fixture.curl(&["-H", accepted], &format!("/{coding}")).ok();
            assert_eq!(answer, format!("key: {MARKER}\n"), "{coding} {accepted}");
        }
    }
    for coding in ["compress", "thrice", "lie"] {
        let (code, rejection) = fixture.rejected(&[], &fixture.url(&format!("/{coding}")));
        assert_eq!((code.as_str(), &rejection["error"]), ("502", &"unreadable_answer".into()), "{coding}");
        assert!(!rejection.to_string().contains(SECRET));
    }
    let accepted: Vec<String> =
        fixture.api.received().iter().map(|r| r.header("accept-encoding").to_owned()).collect();
    assert!(accepted.iter().all(|accepted| !accepted.contains("compress")), "{accepted:?}");
}

#[test]
fn decompression_bomb_is_refused() {
    let bombs = ["gzip", "zstd"].map(|coding| (coding, compressed(coding, &vec![0; 256 << 20])));
    let fixture = fixture(move |received| {
        let (coding, bomb) = bombs.iter().find(|(coding, _)| received.path.ends_with(coding))?;
        respond(coding, bomb.clone())
    });
    let script = r#"echo ready; read line
        for coding in gzip zstd; do
            curl -s -o /dev/null -w '%{http_code} %{size_download}\n' -H "Authorization: Bearer $API_KEY" "$0/$coding"
        done; read line"#;
    let mut agent =
        WaitingAgent::start_command(fixture.home.run_agent(["sh", "-c", script, &fixture.url("")]));
    let interceptor = agent.interceptor();
    let peak = || {
        let status = std::fs::read_to_string(format!("/proc/{interceptor}/status")).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
        line.split_whitespace().next().unwrap().parse::<u64>().unwrap()
    };
    let before = peak();
    use std::io::{BufRead, Write};
    agent.child.stdin.as_mut().unwrap().write_all(b"\n").unwrap();
    let lines = std::io::BufReader::new(agent.child.stdout.as_mut().unwrap()).lines();
    for line in lines.take(2) {
        let line = line.unwrap();
        let size: u64 = line.split(' ').nth(1).unwrap().parse().unwrap();
        assert!(size < 32 << 20, "a bomb went off: {line}");
    }
    let after = peak();
    assert!(after < before + 48 * 1024, "{before} KiB became {after} KiB");
}
