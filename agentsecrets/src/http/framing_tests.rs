//! Accepted and rejected requests, for every segmentation of the input.

use proptest::prelude::*;

use super::*;

const GET: &str = "GET / HTTP/1.1\r\nHost: a\r\n\r\n";

/// Feeds `text` in pieces of `size` and returns the number of bytes passed, and the verdict.
fn passed(text: &[u8], size: usize) -> (usize, Result<(), Violation>) {
    let mut follower = FramingParser::default();
    let mut total = 0;
    let mut known = 0;
    while known < text.len() {
        known = (known + size).min(text.len());
        let (passed, verdict) = follower.advance(&text[total..known]);
        total += passed;
        if verdict.is_err() {
            return (total, verdict);
        }
    }
    (total, Ok(()))
}

#[test]
fn well_formed_requests_pass_in_any_segmentation() {
    for text in [
        GET.to_owned(),
        format!("{GET}\r\n{GET}{GET}"),
        format!("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello{GET}"),
        format!("POST / HTTP/1.1\r\nHost: a\r\ncontent-length: 0\r\n\r\n{GET}"),
        format!("POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n{GET}"),
        format!(
            "POST / HTTP/1.1\r\ntransfer-encoding: Chunked\r\n\r\nA;x=\"y\"\r\n0123456789\r\n0\r\nX-A: b\r\n\r\n{GET}"
        ),
        "GET / HTTP/1.0\r\n\r\n".to_owned(),
        format!("GET / HTTP/1.1\r\nX: \tpadded value \t\r\nEmpty:\r\n\r\n{GET}"),
        "GET / HTTP/1.1\r\nUpgrade: websocket\r\n\r\n\0\n\r anything \x01".to_owned(),
    ] {
        for size in [1, 2, 3, 7, 1000] {
            assert_eq!(passed(text.as_bytes(), size), (text.len(), Ok(())), "{size} {text:?}");
        }
    }
}

#[test]
fn ambiguous_request_is_rejected() {
    let post = |headers: &str, body: &str| format!("POST / HTTP/1.1\r\nHost: a\r\n{headers}\r\n\r\n{body}");
    for (text, passed_bytes) in [
        (post("Content-Length: 5\r\nContent-Length: 6", "hello"), 0),
        (post("Content-Length: 5\r\nContent-Length: 5", "hello"), 0),
        (post("Content-Length: 5, 5", "hello"), 0),
        (post("Content-Length: +5", "hello"), 0),
        (post("Content-Length: 5\r\nTransfer-Encoding: chunked", "0\r\n\r\n"), 0),
        (post("Transfer-Encoding: chunked\r\nContent-Length: 5", "0\r\n\r\n"), 0),
        (post("Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked", "0\r\n\r\n"), 0),
        (post("Transfer-Encoding: gzip, chunked", "0\r\n\r\n"), 0),
        (post("Transfer-Encoding: xchunked", "0\r\n\r\n"), 0),
        (post("Transfer-Encoding : chunked", "0\r\n\r\n"), 0),
        (post("X: a\r\n folded", ""), 0),
        (post("X: a\r\n\tfolded", ""), 0),
        ("GET / HTTP/1.1\nHost: a\n\n".to_owned(), 0),
        ("GET / HTTP/1.1\r\nHost: a\n\r\n".to_owned(), 0),
        ("GET / HTTP/1.1\r\nHost: a\rX: b\r\n\r\n".to_owned(), 0),
        ("GET / HTTP/1.1\r\nHost: a\0\r\n\r\n".to_owned(), 0),
        ("GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n".to_owned(), 0),
        ("GET / HTTP/1.1\r\n: a\r\n\r\n".to_owned(), 0),
        ("GET / HTTP/1.1\r\nno colon\r\n\r\n".to_owned(), 0),
        ("GET /a b HTTP/1.1\r\n\r\n".to_owned(), 0),
        ("GET / HTTP/2.0\r\n\r\n".to_owned(), 0),
        ("GET /\r\n\r\n".to_owned(), 0),
        ("\nGET / HTTP/1.1\r\n\r\n".to_owned(), 0),
        ("POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n".to_owned(), 0),
        (format!("{GET}GET / HTTP/1.1\nHost: a\n\n"), GET.len()),
    ] {
        for size in [1, 5, 1000] {
            let (passed, verdict) = passed(text.as_bytes(), size);
            assert!(verdict.is_err() && passed == passed_bytes, "{size} {passed} {text:?}");
        }
    }
}

#[test]
fn malformed_chunk_is_rejected() {
    let head = "POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n";
    for body in [
        "5\nhello\r\n0\r\n\r\n",
        "5\r\nhelloo\r\n0\r\n\r\n",
        "5\r\nhello\n0\r\n\r\n",
        "0x5\r\nhello\r\n0\r\n\r\n",
        "-5\r\nhello\r\n0\r\n\r\n",
        "\r\nhello\r\n0\r\n\r\n",
        "5 5\r\nhello\r\n0\r\n\r\n",
        "ffffffffffffffffff\r\nhello",
        "5;a\0\r\nhello\r\n0\r\n\r\n",
        "0\r\nContent-Length: 5\r\n\r\n",
        "0\r\nX\r\n\r\n",
    ] {
        for size in [1, 1000] {
            let (_, verdict) = passed(format!("{head}{body}").as_bytes(), size);
            assert!(verdict.is_err(), "{size} {body:?}");
        }
    }
}

#[test]
fn oversized_head_is_rejected() {
    let large = |n: usize| format!("GET / HTTP/1.1\r\nX: {}\r\n\r\n", "x".repeat(n));
    assert!(passed(large(60_000).as_bytes(), 5000).1.is_ok());
    assert_eq!(passed(large(70_000).as_bytes(), 5000).1.unwrap_err().status, 431);
    let many = format!("GET / HTTP/1.1\r\n{}\r\n", "X: y\r\n".repeat(101));
    assert_eq!(passed(many.as_bytes(), 5000).1.unwrap_err().status, 431);
}

proptest! {
    #[test]
    fn garbage_never_panics_and_segmentation_is_irrelevant(
        text in proptest::collection::vec(
            prop_oneof![
                any::<u8>().prop_map(|byte| vec![byte]),
                proptest::sample::select(vec![
                    b"GET / HTTP/1.1\r\n".to_vec(), b"\r\n".to_vec(), b"Content-Length: 3\r\n".to_vec(),
                    b"Transfer-Encoding: chunked\r\n".to_vec(), b"3\r\nabc\r\n".to_vec(), b"0\r\n".to_vec(),
                ]),
            ],
            0..30,
        ),
        size in 1usize..40,
    ) {
        let text = text.concat();
        let (whole, verdict) = passed(&text, text.len().max(1));
        let (cut, cut_verdict) = passed(&text, size);
        prop_assert_eq!(verdict.is_err(), cut_verdict.is_err());
        prop_assert_eq!(whole, cut);
    }
}
