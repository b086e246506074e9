//! Frames and messages from bytes that may be anything.

use diskdelta::remote::{FrameDecoder, FrameEncoder, Message, WireFrame, format};
use proptest::prelude::*;

fn decode_all(decoder: &mut FrameDecoder, mut bytes: &[u8]) -> Result<Vec<WireFrame>, String> {
    let mut frames = Vec::new();
    while !bytes.is_empty() {
        let before = bytes.len();
        frames.extend(
            decoder
                .decode(&mut bytes)
                .map_err(|error| error.to_string())?,
        );
        assert!(bytes.len() < before, "nothing was taken");
    }
    Ok(frames)
}

proptest! {
    #[test]
    fn frames_come_out_as_they_went_in_however_the_line_cuts_them(
        payloads in prop::collection::vec(
            (any::<u8>(), prop::collection::vec(any::<u8>(), 0..60)),
            0..8,
        ),
        cut in 1usize..50,
    ) {
        let mut encoder = FrameEncoder::default();
        let mut bytes = Vec::new();
        for (kind, payload) in &payloads {
            encoder.encode(*kind, payload, &mut bytes).unwrap();
        }
        let mut decoder = FrameDecoder::default();
        let mut frames = Vec::new();
        for piece in bytes.chunks(cut) {
            frames.extend(decode_all(&mut decoder, piece).unwrap());
        }
        prop_assert!(decoder.is_between());
        let pairs: Vec<_> = frames.into_iter().map(|it| (it.kind, it.payload)).collect();
        prop_assert_eq!(pairs, payloads);
    }

    #[test]
    fn no_single_changed_byte_passes(
        payloads in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..30), 1..4),
        at in any::<prop::sample::Index>(),
        flip in 1u8..,
    ) {
        let mut encoder = FrameEncoder::default();
        let mut bytes = Vec::new();
        for payload in &payloads {
            encoder.encode(3, payload, &mut bytes).unwrap();
        }
        let at = at.index(bytes.len());
        bytes[at] ^= flip;
        let mut decoder = FrameDecoder::default();
        if let Ok(frames) = decode_all(&mut decoder, &bytes) {
            // A longer frame than there is: it never ends, and nothing of it is taken.
            prop_assert!(!decoder.is_between());
            let whole = frames.iter().zip(&payloads).all(|(frame, it)| frame.payload == *it);
            prop_assert!(whole && frames.len() < payloads.len());
        }
    }

    #[test]
    fn any_bytes_are_messages_or_errors(
        kind in prop_oneof![1u8..9, 16u8..26, 32u8..39, any::<u8>()],
        payload in prop::collection::vec(prop_oneof![0u8..4, any::<u8>()], 0..200),
        hash_len in 0usize..20,
    ) {
        let frame = WireFrame { kind, payload };
        if let Ok(message) = Message::decode(&frame, hash_len) {
            // What was understood is said again in the same bytes, or in words that mean the same.
            let again = Message::decode(&message.encode(), hash_len).unwrap();
            prop_assert_eq!(message, again);
        }
    }
}

#[test]
fn a_frame_twice_or_in_another_place_is_refused() {
    let mut encoder = FrameEncoder::default();
    let (mut one, mut two) = (Vec::new(), Vec::new());
    encoder.encode(1, b"one", &mut one).unwrap();
    encoder.encode(1, b"two", &mut two).unwrap();
    for order in [[&one, &one], [&two, &one]] {
        let bytes = order.map(|it| &it[..]).concat();
        assert!(decode_all(&mut FrameDecoder::default(), &bytes).is_err());
    }
    let mut decoder = FrameDecoder::default();
    assert!(decode_all(&mut decoder, &two).is_err());
    assert!(
        decode_all(&mut decoder, &one).is_err(),
        "goes on after an error"
    );
}

#[test]
fn a_length_that_no_frame_has_is_refused_before_anything_is_held() {
    let mut bytes = vec![1, 0];
    bytes.extend_from_slice(&(format::PAYLOAD_MOST as u32 + 1).to_le_bytes());
    bytes.extend_from_slice(&[0; 4]);
    let error = decode_all(&mut FrameDecoder::default(), &bytes).unwrap_err();
    assert!(error.contains("not a frame"), "{error}");
    let banner = b"Welcome to host\nLast login: today\n";
    let error = decode_all(&mut FrameDecoder::default(), banner).unwrap_err();
    assert!(error.contains("Welcome to"), "{error}");
    let long = vec![0; format::PAYLOAD_MOST + 1];
    assert!(
        FrameEncoder::default()
            .encode(1, &long, &mut Vec::new())
            .is_err()
    );
}
