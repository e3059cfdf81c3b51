//! Frames of honest and of hostile peers.

use proptest::prelude::*;

use super::*;

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().build().unwrap()
}

fn read_all(bytes: &[u8], of_client: bool) -> Result<Vec<Piece>, FrameError> {
    let mut reader = if of_client { Reader::of_client(bytes) } else { Reader::of_server(bytes) };
    runtime().block_on(async {
        let mut pieces = Vec::new();
        while let Some(piece) = reader.next().await? {
            pieces.push(piece);
        }
        Ok(pieces)
    })
}

#[test]
fn what_is_written_is_read_again() {
    for masked in [true, false] {
        let mut wire = Vec::new();
        runtime().block_on(async {
            let mut writer = if masked { Writer::to_server(&mut wire) } else { Writer::to_client(&mut wire) };
            writer.data(Kind::Text, b"one, ", false).await.unwrap();
            writer.control(Signal::Ping, b"there?").await.unwrap();
            writer.data(Kind::Text, b"two", true).await.unwrap();
            writer.data(Kind::Binary, &[7; 200_000], true).await.unwrap();
            writer.close(1000, "bye").await.unwrap();
        });
        let pieces = read_all(&wire, masked).unwrap();
        let Piece::Data { kind: Kind::Text, bytes, is_last: false } = &pieces[0] else { panic!() };
        assert_eq!(&**bytes, b"one, ");
        assert_eq!(pieces[1], Piece::Control(Signal::Ping, BytesMut::from("there?")));
        let Piece::Data { kind: Kind::Text, is_last: true, .. } = &pieces[2] else { panic!() };
        let mut large = 0;
        for piece in &pieces[3..pieces.len() - 1] {
            let Piece::Data { kind: Kind::Binary, bytes, is_last } = piece else { panic!() };
            assert!(bytes.len() <= PIECE && bytes.iter().all(|byte| *byte == 7));
            large += bytes.len();
            assert_eq!(*is_last, large == 200_000);
        }
        assert_eq!(large, 200_000);
        let Piece::Control(Signal::Close, close) = &pieces[pieces.len() - 1] else { panic!() };
        assert_eq!(&**close, b"\x03\xe8bye");
        assert!(read_all(&wire, !masked).is_err(), "masked where it must not be");
    }
}

#[test]
fn frames_that_the_protocol_does_not_know_are_errors() {
    for bytes in [
        &b"\xc1\x02hi"[..],                          // an extension's bit
        b"\x83\x02hi",                               // an unknown kind
        b"\x8b\x00",                                 // an unknown control
        b"\x80\x02hi",                               // goes on without having begun
        b"\x01\x02hi\x81\x02hi",                     // begins within another
        b"\x09\x00",                                 // a control frame in parts
        b"\x89\x7e\x00\x7e",                         // a large control frame
        b"\x88\x01\x03",                             // half a close code
        b"\x82\x7f\xff\xff\xff\xff\xff\xff\xff\xff", // impossible length
    ] {
        let error = read_all(bytes, false).unwrap_err();
        assert!(matches!(error, FrameError::Protocol(_)), "{bytes:x?} {error}");
    }
    for bytes in [&b"\x81\x05hel"[..], b"\x81", b"\x01\x02hi"] {
        assert!(matches!(read_all(bytes, false).unwrap_err(), FrameError::Io(_)), "{bytes:x?}");
    }
}

proptest! {
    #[test]
    fn garbage_never_panics(bytes in proptest::collection::vec(any::<u8>(), 0..300), of_client: bool) {
        let _ = read_all(&bytes, of_client);
    }
}
