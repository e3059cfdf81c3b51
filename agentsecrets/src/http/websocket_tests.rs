//! Frames of well-behaved and of hostile peers.

use proptest::prelude::*;

use super::*;

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().build().unwrap()
}

fn read_all(bytes: &[u8], of_client: bool) -> Result<Vec<Fragment>, WebSocketError> {
    let mut reader =
        if of_client { FrameReader::from_client(bytes) } else { FrameReader::from_server(bytes) };
    runtime().block_on(async {
        let mut fragments = Vec::new();
        while let Some(fragment) = reader.next().await? {
            fragments.push(fragment);
        }
        Ok(fragments)
    })
}

#[test]
fn written_frames_are_read_back() {
    for masked in [true, false] {
        let mut wire = Vec::new();
        runtime().block_on(async {
            let mut writer =
                if masked { FrameWriter::to_server(&mut wire) } else { FrameWriter::to_client(&mut wire) };
            writer.data(MessageKind::Text, b"one, ", false).await.unwrap();
            writer.control(ControlKind::Ping, b"there?").await.unwrap();
            writer.data(MessageKind::Text, b"two", true).await.unwrap();
            writer.data(MessageKind::Binary, &[7; 200_000], true).await.unwrap();
            writer.close(1000, "bye").await.unwrap();
        });
        let fragments = read_all(&wire, masked).unwrap();
        let Fragment::Data { kind: MessageKind::Text, bytes, is_last: false } = &fragments[0] else {
            panic!()
        };
        assert_eq!(&**bytes, b"one, ");
        assert_eq!(fragments[1], Fragment::Control(ControlKind::Ping, BytesMut::from("there?")));
        let Fragment::Data { kind: MessageKind::Text, is_last: true, .. } = &fragments[2] else { panic!() };
        let mut large = 0;
        for fragment in &fragments[3..fragments.len() - 1] {
            let Fragment::Data { kind: MessageKind::Binary, bytes, is_last } = fragment else { panic!() };
            assert!(bytes.len() <= MAX_FRAGMENT_SIZE && bytes.iter().all(|byte| *byte == 7));
            large += bytes.len();
            assert_eq!(*is_last, large == 200_000);
        }
        assert_eq!(large, 200_000);
        let Fragment::Control(ControlKind::Close, close) = &fragments[fragments.len() - 1] else { panic!() };
        assert_eq!(&**close, b"\x03\xe8bye");
        assert!(read_all(&wire, !masked).is_err(), "masked where it must not be");
    }
}

#[test]
fn invalid_frames_are_rejected() {
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
        assert!(matches!(error, WebSocketError::Protocol(_)), "{bytes:x?} {error}");
    }
    for bytes in [&b"\x81\x05hel"[..], b"\x81", b"\x01\x02hi"] {
        assert!(matches!(read_all(bytes, false).unwrap_err(), WebSocketError::Io(_)), "{bytes:x?}");
    }
}

proptest! {
    #[test]
    fn garbage_never_panics(bytes in proptest::collection::vec(any::<u8>(), 0..300), of_client: bool) {
        let _ = read_all(&bytes, of_client);
    }
}
