//! Compressed answers: read where they can be, refused where not, in bounded memory.

use tokio::io::AsyncReadExt;

use super::*;

/// `bytes` as `/CODING` names it.
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

fn answer(coding: &str, body: Vec<u8>) -> Option<Response<Body>> {
    let mut answer = whole("text/plain", body);
    answer.headers_mut().insert("content-encoding", coding.parse().ok()?);
    Some(answer)
}

#[test]
fn a_coding_is_read_whether_it_was_asked_for_or_not_and_an_unknown_one_is_refused() {
    let world = world(|received| {
        let text = format!("key: {}\n", secret_of(received)).into_bytes();
        // Our encoders want a runtime of their own.
        let path = received.path.clone();
        std::thread::spawn(move || match path.trim_start_matches('/') {
            "twice" => answer("gzip, br", compressed("br", &compressed("gzip", &text))),
            "compress" => answer("compress", text),
            "thrice" => answer("gzip, gzip, gzip", text),
            "lie" => answer("gzip", text),
            coding => answer(coding, compressed(coding, &text)),
        })
        .join()
        .unwrap()
    });
    for coding in ["gzip", "deflate", "br", "zstd", "twice"] {
        for asked in ["Accept-Encoding;", "Accept-Encoding: identity", "Accept-Encoding: compress, gzip, br"]
        {
            let answer = world.curl(&["-H", asked], &format!("/{coding}")).ok();
            assert_eq!(answer, format!("key: {MARKER}\n"), "{coding} {asked}");
        }
    }
    for coding in ["compress", "thrice", "lie"] {
        let (code, refusal) = world.refused(&[], &world.url(&format!("/{coding}")));
        assert_eq!((code.as_str(), &refusal["error"]), ("502", &"unreadable_answer".into()), "{coding}");
        assert!(!refusal.to_string().contains(SECRET));
    }
    let asked: Vec<String> =
        world.api.received().iter().map(|r| r.header("accept-encoding").to_owned()).collect();
    assert!(asked.iter().all(|asked| !asked.contains("compress")), "{asked:?}");
}

#[test]
fn a_bomb_is_refused_in_bounded_memory() {
    let bombs = ["gzip", "zstd"].map(|coding| (coding, compressed(coding, &vec![0; 256 << 20])));
    let world = world(move |received| {
        let (coding, bomb) = bombs.iter().find(|(coding, _)| received.path.ends_with(coding))?;
        answer(coding, bomb.clone())
    });
    let script = r#"echo ready; read line
        for coding in gzip zstd; do
            curl -s -o /dev/null -w '%{http_code} %{size_download}\n' -H "Authorization: Bearer $API_KEY" "$0/$coding"
        done; read line"#;
    let mut agent = Agent::started(world.home.run_agent(["sh", "-c", script, &world.url("")]));
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
