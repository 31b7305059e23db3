//! Each kind of service that a TCP group may be, and a router that lets connections wait: real sockets.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::time::Duration;

use socket2::{Domain, SockRef, Socket, Type};

use super::{Answer, Demand, Miss, Question, Reply, ask};

/// Does `serve` with every connection, and tells where.
fn server(serve: impl Fn(TcpStream, usize) + Send + Sync + 'static) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let serve = std::sync::Arc::new(serve);
    std::thread::spawn(move || {
        for (number, stream) in listener.incoming().enumerate() {
            let serve = std::sync::Arc::clone(&serve);
            std::thread::spawn(move || serve(stream.unwrap(), number));
        }
    });
    address
}

/// Waits for the client's end; a client that sends something is reset.
fn ended(stream: &mut TcpStream) {
    let mut bytes = Vec::new();
    if stream.read_to_end(&mut bytes).unwrap_or(0) > 0 {
        reset(stream);
        panic!("something was sent: {bytes:?}");
    }
}

/// What a router does with a client that ends while it waits.
fn reset(stream: &TcpStream) {
    SockRef::from(stream).set_linger(Some(Duration::ZERO)).unwrap();
}

fn asked(address: SocketAddr, park: Duration, demand: &Demand) -> Result<Reply, String> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let within = Duration::from_secs(3);
    runtime
        .block_on(async {
            let told = tokio::time::timeout(within, ask(&Question::Tcp { park }, address, demand)).await;
            told.unwrap_or_else(|_| Err(Miss::Client("in vain".to_owned())))
        })
        .map_err(|miss| match miss {
            Miss::Client(why) => why,
            Miss::Own(why) => panic!("not the test's: {why}"),
        })
}

fn answer(address: SocketAddr) -> Result<Answer, String> {
    asked(address, Duration::ZERO, &Demand::default()).map(|reply| reply.answer)
}

#[test]
fn a_member_is_told_by_what_it_does_and_nothing_is_sent_to_it() {
    let closes = server(|mut stream, _| ended(&mut stream));
    assert_eq!(answer(closes), Ok(Answer::Closed));
    let speaks = server(|mut stream, _| {
        stream.write_all(b"220 here\r\n").unwrap();
        ended(&mut stream);
    });
    assert_eq!(answer(speaks), Ok(Answer::Spoke));
    let stays = server(|mut stream, _| {
        ended(&mut stream);
        // Until the other side has gone for good, of which it hears nothing.
        std::thread::park();
    });
    assert_eq!(answer(stays), Ok(Answer::Stayed));
}

/// A router without a member accepts, and resets whoever goes while it waits; one that dies closes without a word.
#[test]
fn a_connection_without_a_member_is_no_answer() {
    for park in [0, 300] {
        let waits = server(|mut stream, _| {
            ended(&mut stream);
            reset(&stream);
        });
        let told = asked(waits, Duration::from_millis(park), &Demand::default()).map(|reply| reply.answer);
        assert!(told.as_ref().is_err_and(|why| why.starts_with("no member behind the connection")), "{told:?}");
    }
    let closes_at_once = server(|stream, _| drop(stream));
    // However late it closes: nobody ends first where the member is to speak.
    let demand = Demand::default();
    demand.raise(Answer::Spoke);
    assert!(asked(closes_at_once, Duration::ZERO, &demand).is_err());
    // Bound, so that the port is nobody else's, and not listening.
    let nobody = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    nobody.bind(&SocketAddr::from(([127, 0, 0, 1], 0)).into()).unwrap();
    let address = nobody.local_addr().unwrap().as_socket().unwrap();
    assert!(answer(address).is_err_and(|why| why.contains("no connection")));
}

#[test]
fn a_client_that_waits_is_answered_when_there_is_a_member() {
    let later = server(|mut stream, number| {
        ended(&mut stream);
        if number < 4 {
            reset(&stream);
        }
    });
    let reply = asked(later, Duration::from_secs(60), &Demand::default()).unwrap();
    assert_eq!((reply.answer, reply.again), (Answer::Closed, true));
}

/// For a program that is stopped the kernel still accepts, and holds the connection open.
#[test]
fn a_member_that_hangs_is_no_answer_once_it_is_known_what_it_gives() {
    let hangs = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = hangs.local_addr().unwrap();
    for known in [Answer::Closed, Answer::Spoke] {
        let demand = Demand::default();
        demand.raise(known);
        assert_eq!(asked(address, Duration::ZERO, &demand).map(|reply| reply.answer), Err("in vain".to_owned()));
        assert_ne!(
            Question::Tcp { park: Duration::ZERO }.evidence(&demand),
            Question::Tcp { park: Duration::ZERO }.evidence(&Demand::default())
        );
    }
}

#[test]
fn the_report_says_what_was_taken_as_an_answer() {
    let evidence = |also: &[u16]| Question::page("/healthz", also).evidence(&Demand::default());
    assert_eq!(evidence(&[200, 204]), "GET /healthz, answered with a status below 500");
    assert_eq!(evidence(&[200, 503]), "GET /healthz, answered with a status below 500, or with 503, which the check calls good");
}
