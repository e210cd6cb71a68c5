//! The link itself, before anything is said of an agent over it: it is as far away and as unreliable as it was told to be.

use std::io::{ErrorKind, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::thread;
use std::time::{Duration, Instant};

use crate::relay::Path;
use crate::site::Site;

/// Beside the broker's.
const PORT: u16 = 7;
/// How long nothing comes where nothing should.
const SILENCE: Duration = Duration::from_millis(1_500);

#[test]
fn the_way_is_what_it_was_told_to_be() {
    let Some(site) = Site::build(256, Path::of(300)) else { return };
    let listener = site.at_centre(|| TcpListener::bind(("0.0.0.0", PORT))).unwrap();
    let connect = || {
        let stream = site.at_gateway(|| TcpStream::connect((Site::BROKER, PORT))).unwrap();
        let (mut echo, _) = listener.accept().unwrap();
        // It ends with the connection, in whatever way.
        let echoed = thread::spawn(move || std::io::copy(&mut echo.try_clone()?, &mut echo));
        (stream, echoed)
    };
    let ask = |stream: &mut TcpStream| {
        let begun = Instant::now();
        stream.write_all(b"?")?;
        stream.read_exact(&mut [0]).map(|()| begun.elapsed())
    };
    let (mut stream, _) = connect();
    for _ in 0..5 {
        assert!(ask(&mut stream).unwrap() >= Duration::from_millis(300));
    }
    // The queue is before the way: at 32,000 bytes a second 16,000 take almost half a second, but for the burst.
    let begun = Instant::now();
    stream.write_all(&[0; 16_000]).unwrap();
    stream.read_exact(&mut [0; 16_000]).unwrap();
    assert!(begun.elapsed() >= Duration::from_millis(750));
    let sent = site.qdisc();
    assert!(sent.sent >= 16_000 && sent.dropped == 0, "{sent:?}");

    for is_open in [[false, true], [true, false], [false, false]] {
        site.relay.set(Path { is_open, ..Path::of(300) });
        stream.set_read_timeout(Some(SILENCE)).unwrap();
        assert_eq!(ask(&mut stream).unwrap_err().kind(), ErrorKind::WouldBlock, "{is_open:?}");
        site.relay.set(Path::of(300));
        // TCP sends again what was lost.
        stream.set_read_timeout(None).unwrap();
        stream.read_exact(&mut [0]).unwrap();
    }
    site.relay.set(Path { loss: 0.2, jitter: 1.0, ..Path::of(20) });
    stream.write_all(&[1; 10_000]).unwrap();
    let mut received = vec![0; 10_000];
    stream.read_exact(&mut received).unwrap();
    assert!(received.iter().all(|byte| *byte == 1));
    site.relay.set(Path::of(20));
    let (mut stream, echoed) = connect();
    ask(&mut stream).unwrap();
    site.relay.reset();
    assert_eq!(ask(&mut stream).unwrap_err().kind(), ErrorKind::ConnectionReset);
    assert_eq!(echoed.join().unwrap().unwrap_err().kind(), ErrorKind::ConnectionReset);
}
