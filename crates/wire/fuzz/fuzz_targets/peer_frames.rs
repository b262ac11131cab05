//! Peer frames: no input panics; what decodes encodes to the same bytes.
#![no_main]

use bytes::BytesMut;
use libfuzzer_sys::fuzz_target;
use wire::peer::Frame;

fuzz_target!(|bytes: &[u8]| {
    let mut buffer = BytesMut::from(bytes);
    let mut at = 0;
    while let Ok(Some(frame)) = Frame::decode(&mut buffer) {
        let mut again = frame.header().to_vec();
        again.extend_from_slice(frame.body());
        assert_eq!(bytes[at..at + again.len()], again);
        at += again.len();
    }
});
