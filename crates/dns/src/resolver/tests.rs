use std::net::UdpSocket;
use std::time::Duration;

use hickory_resolver::proto::op::Message;
use hickory_resolver::proto::rr::rdata::{A, PTR};
use hickory_resolver::proto::rr::{Name, RData, Record, RecordType};
use tokio::task::spawn_blocking;
use tokio::time::timeout;

use super::{LOOKUP_TIMEOUT, Resolver};

/// Takes the two questions about a name; answers that for A, and never that for AAAA.
fn answer_half(server: &UdpSocket) {
    let mut buffer = [0; 512];
    let (mut a, mut aaaa) = (false, false);
    while !(a && aaaa) {
        let (length, client) = server.recv_from(&mut buffer).unwrap();
        let mut message = Message::from_vec(&buffer[..length]).unwrap();
        let question = message.queries[0].clone();
        if question.query_type() == RecordType::AAAA {
            aaaa = true;
            continue;
        }
        message = message.into_response();
        message.add_answer(Record::from_rdata(question.name().clone(), 60, RData::A(A::new(10, 0, 0, 1))));
        server.send_to(&message.to_vec().unwrap(), client).unwrap();
        a = true;
    }
}

/// The caller's deadline began a moment before the lookup.
#[tokio::test(start_paused = true)]
async fn the_answer_about_one_family_survives_that_the_other_never_comes() {
    let server = UdpSocket::bind("127.0.0.1:0").unwrap();
    // Real time is bounded, should a question not arrive.
    server.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    let resolver = Resolver::with_servers(&[server.local_addr().unwrap()], &[]);
    // The paused clock stands while this runs; then it goes to the next deadline.
    let answering = spawn_blocking(move || {
        answer_half(&server);
        server
    });
    let deadline = LOOKUP_TIMEOUT.checked_sub(Duration::from_millis(1)).unwrap();
    let (answer, _server) = tokio::join!(timeout(deadline, resolver.lookup("cart.")), answering);
    let answer = answer.expect("before the caller's deadline").unwrap();
    assert_eq!(answer.addresses, ["10.0.0.1".parse::<std::net::IpAddr>().unwrap()]);
    assert!(answer.incomplete.is_some());
}

/// Answers one question with a name, or with nothing.
fn answer_pointer(server: &UdpSocket, name: Option<Name>) -> String {
    let mut buffer = [0; 512];
    let (length, client) = server.recv_from(&mut buffer).unwrap();
    let mut message = Message::from_vec(&buffer[..length]).unwrap();
    let question = message.queries[0].clone();
    assert_eq!(question.query_type(), RecordType::PTR);
    message = message.into_response();
    if let Some(name) = name {
        let pointer = RData::PTR(PTR(name));
        message.add_answer(Record::from_rdata(question.name().clone(), 60, pointer));
    }
    server.send_to(&message.to_vec().unwrap(), client).unwrap();
    question.name().to_string()
}

#[tokio::test]
async fn an_address_has_the_name_that_its_server_says_if_it_is_one() {
    for (said, expected) in [
        (Some(&["Cron-Report", "shop_default"][..]), Some("cron-report.shop_default")),
        (Some(&["a <script>", "test"][..]), None),
        (None, None),
    ] {
        let server = UdpSocket::bind("127.0.0.1:0").unwrap();
        server.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        let resolver = Resolver::with_servers(&[server.local_addr().unwrap()], &[]);
        let pointer = said.map(|labels| Name::from_labels(labels.iter().map(|label| label.as_bytes())).unwrap());
        let answering = spawn_blocking(move || answer_pointer(&server, pointer));
        let (name, asked) = tokio::join!(resolver.name_of("10.1.2.3".parse().unwrap()), answering);
        assert_eq!(asked.unwrap(), "3.2.1.10.in-addr.arpa.");
        assert_eq!(name.unwrap().as_deref(), expected, "{said:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_server_that_does_not_say_a_name_is_not_waited_for_longer_than_for_an_address() {
    let server = UdpSocket::bind("127.0.0.1:0").unwrap();
    let resolver = Resolver::with_servers(&[server.local_addr().unwrap()], &[]);
    let began = tokio::time::Instant::now();
    assert!(resolver.name_of("fd00::1".parse().unwrap()).await.is_err());
    assert!(began.elapsed() <= LOOKUP_TIMEOUT, "{:?}", began.elapsed());
}
