//! TLS and the PROXY protocol on listeners of a real daemon: certificates by name, exchanged while it runs, clients by their certificates.

mod cli_support;
mod security_support;

use cli_support::{Daemon, PATIENCE, admit, get, run, wait_for};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned, version};
use security_support::{Authority, Pem, file};
use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::path::Path;
use std::sync::Arc;

type Tls = StreamOwned<ClientConnection, TcpStream>;

/// A client that trusts these authorities.
struct Client<'a> {
    trusts: &'a [&'a Authority],
    shows: Option<&'a Pem>,
    host: &'static str,
    /// No TLS 1.3.
    old: bool,
}

impl<'a> Client<'a> {
    fn of(trusts: &'a [&'a Authority]) -> Self {
        Self { trusts, shows: None, host: "localhost", old: false }
    }

    fn showing(self, pem: &'a Pem) -> Self {
        Self { shows: Some(pem), ..self }
    }

    /// Trusts our authority, and shows a certificate.
    fn with(trusts: &'a [&'a Authority], pem: &'a Pem) -> Self {
        Self::of(trusts).showing(pem)
    }

    fn connect(&self, address: SocketAddr) -> Tls {
        self.over(socket(address))
    }

    fn over(&self, socket: TcpStream) -> Tls {
        let mut roots = RootCertStore::empty();
        self.trusts.iter().for_each(|a| roots.add(CertificateDer::from_pem_slice(a.pem().as_bytes()).expect("PEM")).expect("an authority"));
        let versions: &[_] = if self.old { &[&version::TLS12] } else { &[&version::TLS13, &version::TLS12] };
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let builder = ClientConfig::builder_with_provider(provider).with_protocol_versions(versions).expect("versions").with_root_certificates(roots);
        let config = match self.shows {
            None => builder.with_no_client_auth(),
            Some(pem) => {
                let chain = vec![CertificateDer::from_pem_slice(pem.certificate.as_bytes()).expect("PEM")];
                builder.with_client_auth_cert(chain, PrivateKeyDer::from_pem_slice(pem.key.as_bytes()).expect("PEM")).expect("a pair")
            }
        };
        let connection = ClientConnection::new(Arc::new(config), ServerName::try_from(self.host).expect("a name")).expect("a client");
        StreamOwned::new(connection, socket)
    }
}

fn socket(address: SocketAddr) -> TcpStream {
    let socket = TcpStream::connect(address).expect("it listens");
    socket.set_read_timeout(Some(PATIENCE)).expect("a socket");
    socket
}

fn frame(message: &str) -> Vec<u8> {
    [b"\x0b", message.as_bytes(), b"\x1c\r"].concat()
}

/// The answer to a message, or why there is none.
fn exchange(stream: &mut (impl Read + Write), message: &str) -> Result<String, std::io::Error> {
    stream.write_all(&frame(message))?;
    stream.flush()?;
    answer(stream)
}

fn answer(stream: &mut impl Read) -> Result<String, std::io::Error> {
    let (mut answer, mut byte) = (Vec::new(), [0]);
    while !answer.ends_with(b"\x1c\r") {
        if stream.read(&mut byte)? == 0 {
            return Err(ErrorKind::UnexpectedEof.into());
        }
        answer.push(byte[0]);
    }
    Ok(String::from_utf8_lossy(&answer).into_owned())
}

#[track_caller]
fn accepted(stream: &mut (impl Read + Write), control_id: &str) {
    let answer = exchange(stream, &admit(control_id, "4711")).unwrap_or_else(|e| panic!("{control_id}: {e}"));
    assert!(answer.contains(&format!("MSA|AA|{control_id}")), "{answer}");
}

/// What the client was told, in its library's words.
#[track_caller]
fn refused(mut stream: Tls) -> String {
    exchange(&mut stream, &admit("X", "4711")).expect_err("it may not come in").to_string()
}

/// A site with one listener on a free port.
fn site(folder: &Path, listener: &str) -> Daemon {
    write_site(folder, listener);
    Daemon::start(folder)
}

fn write_site(folder: &Path, listener: &str) {
    let text = format!("console: {{ listen: 127.0.0.1:0 }}\nlisteners:\n  adt: {{ mllp: 127.0.0.1:0, {listener} }}\ntargets: {{ main: {{ folder: out }} }}\n");
    file(folder, "kiln.yaml", &text);
}

fn pair(folder: &Path, name: &str, pem: &Pem) {
    file(folder, &format!("{name}.pem"), &pem.certificate);
    file(folder, &format!("{name}-key.pem"), &pem.key);
}

#[track_caller]
fn counted(daemon: &Daemon, fault: &str, times: u64) {
    let line = format!("kiln_frame_faults_total{{listener=\"adt\",fault=\"{fault}\"}} {times}");
    let console = daemon.address("console http://");
    wait_for(&line, || get(console, "/metrics").1.lines().any(|l| l == line));
}

/// The certificate that a listener shows to a client that asks for this host.
fn shown(client: &Client<'_>, address: SocketAddr) -> Option<Vec<u8>> {
    let mut stream = client.connect(address);
    while stream.conn.is_handshaking() {
        stream.conn.complete_io(&mut stream.sock).ok()?;
    }
    Some(stream.conn.peer_certificates()?.first()?.to_vec())
}

fn der(pem: &Pem) -> Vec<u8> {
    CertificateDer::from_pem_slice(pem.certificate.as_bytes()).expect("PEM").to_vec()
}

#[test]
fn a_certificate_is_exchanged_while_it_runs_and_open_connections_stay() {
    let folder = tempfile::tempdir().expect("a folder");
    let (former, next) = (Authority::new(), Authority::new());
    let (old, new) = (former.server("localhost", 4000), next.server("localhost", 4000));
    pair(folder.path(), "adt", &old);
    let daemon = site(folder.path(), "tls: { certificate: adt.pem, key: adt-key.pem }");
    let address = daemon.address("adt on ");
    let both = [&former, &next];
    let client = Client::of(&both);
    let mut open = client.connect(address);
    accepted(&mut open, "1");
    let old_fashioned = Client { old: true, ..Client::of(&both) };
    accepted(&mut old_fashioned.connect(address), "2");

    // Half of the exchange is no pair: the old one stays in use.
    file(folder.path(), "adt.pem", &new.certificate);
    wait_for("the daemon to see half a pair", || {
        assert_eq!(shown(&client, address).expect("a handshake"), der(&old));
        daemon.err().contains("do not belong together")
    });
    file(folder.path(), "adt-key.pem", &new.key);
    wait_for("the new certificate", || shown(&client, address).expect("a handshake") == der(&new));
    accepted(&mut open, "3");
    accepted(&mut Client::of(&[&next]).connect(address), "4");
    drop(open);
    assert_eq!(daemon.stop(), 0);
}

#[test]
fn the_certificate_is_the_one_of_the_host_that_the_client_asks_for() {
    let folder = tempfile::tempdir().expect("a folder");
    let authority = Authority::new();
    let (first, second) = (authority.server("localhost", 4000), authority.server("lab.example", 4000));
    pair(folder.path(), "a", &first);
    pair(folder.path(), "b", &second);
    let daemon = site(folder.path(), "tls: { certificate: [a.pem, b.pem], key: [a-key.pem, b-key.pem] }");
    let address = daemon.address("adt on ");
    let all = [&authority];
    for (host, expected) in [("lab.example", &second), ("localhost", &first)] {
        let client = Client { host, ..Client::of(&all) };
        accepted(&mut client.connect(address), host);
        assert_eq!(shown(&client, address).expect("a handshake"), der(expected), "{host}");
    }
    // Nobody is called so: the first, which the client does not take.
    let told = refused(Client { host: "elsewhere.example", ..Client::of(&all) }.connect(address));
    assert!(told.contains("not valid for name"), "{told}");
    counted(&daemon, "handshake", 1);
}

#[test]
fn only_clients_whose_certificates_name_them_may_come_in() {
    let folder = tempfile::tempdir().expect("a folder");
    let (ours, theirs) = (Authority::new(), Authority::new());
    pair(folder.path(), "adt", &ours.server("localhost", 4000));
    file(folder.path(), "clients.pem", &ours.pem());
    let listener = |names: &str| format!("tls: {{ certificate: adt.pem, key: adt-key.pem, clients: {{ ca: clients.pem, names: [{names}] }} }}");
    let daemon = site(folder.path(), &listener("lab.example, \"*.ward.example\", Pump 7"));
    let address = daemon.address("adt on ");
    let all = [&ours];
    let lab = ours.named_client("lab.example", "");
    accepted(&mut Client::with(&all, &lab).connect(address), "1");
    accepted(&mut Client::with(&all, &ours.named_client("w3.ward.example", "")).connect(address), "2");
    accepted(&mut Client::with(&all, &ours.named_client("pump.example", "pump 7")).connect(address), "3");
    let mut open = Client::with(&all, &lab).connect(address);
    accepted(&mut open, "4");

    let stranger = ours.named_client("billing.example", "");
    for old in [false, true] {
        let told = refused(Client { old, ..Client::with(&all, &stranger) }.connect(address));
        assert!(told.contains("AccessDenied"), "{told}");
    }
    counted(&daemon, "client-name", 2);
    let told = refused(Client::of(&all).connect(address));
    assert!(told.contains("CertificateRequired"), "{told}");
    let told = refused(Client::with(&all, &theirs.named_client("lab.example", "")).connect(address));
    assert!(told.contains("UnknownCA"), "{told}");
    let told = refused(Client::with(&all, &ours.server("lab.example", 4000)).connect(address));
    assert!(told.contains("alert"), "a certificate of a server is none of a client: {told}");
    counted(&daemon, "handshake", 3);
    for reason in ["no name of its certificate", "it showed no certificate", "no authority of", "not one for clients"] {
        wait_for(reason, || daemon.err().contains(reason));
    }

    // Who may come in changes while it runs; who is in stays.
    write_site(folder.path(), &listener("billing.example"));
    run(folder.path(), &["reload"]).expect(0);
    accepted(&mut Client::with(&all, &stranger).connect(address), "5");
    assert!(refused(Client::with(&all, &lab).connect(address)).contains("AccessDenied"));
    accepted(&mut open, "6");
}

#[test]
fn a_certificate_that_was_revoked_does_not_come_in_any_more() {
    let folder = tempfile::tempdir().expect("a folder");
    let ours = Authority::new();
    pair(folder.path(), "adt", &ours.server("localhost", 4000));
    file(folder.path(), "clients.pem", &ours.pem());
    file(folder.path(), "revoked.pem", &ours.revocations(&[]));
    let daemon = site(folder.path(), "tls: { certificate: adt.pem, key: adt-key.pem, clients: { ca: clients.pem, revoked: revoked.pem } }");
    let address = daemon.address("adt on ");
    let all = [&ours];
    let (lab, ward) = (ours.numbered_client(7), ours.numbered_client(8));
    accepted(&mut Client::of(&all).showing(&lab).connect(address), "1");
    file(folder.path(), "revoked.pem", &ours.revocations(&[7]));
    wait_for("the revocation", || exchange(&mut Client::of(&all).showing(&lab).connect(address), &admit("2", "4711")).is_err());
    assert!(refused(Client::of(&all).showing(&lab).connect(address)).contains("CertificateRevoked"));
    accepted(&mut Client::of(&all).showing(&ward).connect(address), "3");
    wait_for("the reason", || daemon.err().contains("was revoked"));
}

#[test]
fn who_does_not_speak_tls_or_not_in_time_is_shown_the_door() {
    let folder = tempfile::tempdir().expect("a folder");
    let authority = Authority::new();
    pair(folder.path(), "adt", &authority.server("localhost", 4000));
    let daemon = site(folder.path(), "tls: { certificate: adt.pem, key: adt-key.pem, minimum: 1.3 }, limits: { handshake: 1s }");
    let address = daemon.address("adt on ");
    let all = [&authority];
    accepted(&mut Client::of(&all).connect(address), "1");
    let told = refused(Client { old: true, ..Client::of(&all) }.connect(address));
    assert!(told.contains("ProtocolVersion"), "{told}");
    counted(&daemon, "handshake", 1);
    wait_for("the reason", || daemon.err().contains("no version of TLS"));

    let mut plain = socket(address);
    let answer = exchange(&mut plain, &admit("PLANTED-1", "PLANTED-2"));
    assert!(!answer.is_ok_and(|text| text.contains("MSA")));
    counted(&daemon, "handshake", 2);
    wait_for("the reason", || daemon.err().contains("it does not speak TLS"));

    let mut silent = socket(address);
    let mut nothing = Vec::new();
    silent.read_to_end(&mut nothing).expect("closed in time");
    counted(&daemon, "handshake", 3);
    wait_for("the reason", || daemon.err().contains("it took too long"));
    assert!(!daemon.err().contains("PLANTED"), "{}", daemon.err());
    accepted(&mut Client::of(&all).connect(address), "2");
}

#[test]
fn what_came_before_tcp_was_closed_is_answered_also_without_a_close_of_tls() {
    let folder = tempfile::tempdir().expect("a folder");
    let authority = Authority::new();
    pair(folder.path(), "adt", &authority.server("localhost", 4000));
    let daemon = site(folder.path(), "tls: { certificate: adt.pem, key: adt-key.pem }");
    let all = [&authority];
    let mut stream = Client::of(&all).connect(daemon.address("adt on "));
    stream.write_all(&[frame(&admit("1", "4711")), frame(&admit("2", "4711"))].concat()).expect("it reads");
    stream.sock.shutdown(Shutdown::Write).expect("a socket");
    for control_id in ["1", "2"] {
        let answer = answer(&mut stream).expect("an answer");
        assert!(answer.contains(&format!("MSA|AA|{control_id}")), "{answer}");
    }
    // In order to the end: TLS is closed, too.
    let mut rest = Vec::new();
    assert_eq!(stream.read_to_end(&mut rest).expect("closed in order"), 0);

    // A long message, and a shutdown while a connection is open.
    let mut long = Client::of(&all).connect(daemon.address("adt on "));
    let message = format!("{}NTE|1||{}\r", admit("3", "4711"), "x".repeat(3_000_000));
    assert!(exchange(&mut long, &message).expect("an answer").contains("MSA|AA|3"));
    assert_eq!(daemon.stop(), 0);
    assert_eq!(long.read_to_end(&mut rest).expect("closed in order"), 0);
}

/// A header of version 2 for IPv4 (PROXY protocol, section 2.2), with a TLV behind the addresses.
fn version_2(command: u8, source: [u8; 4], port: u16) -> Vec<u8> {
    let mut header = b"\r\n\r\n\0\r\nQUIT\n".to_vec();
    header.extend([0x20 | command, 0x11, 0, 12 + 4]);
    header.extend(source.iter().chain(&[127, 0, 0, 1]));
    header.extend(port.to_be_bytes());
    header.extend([0x0a, 0x0f, 0x04, 0x00, 0x01, 0x00]);
    header
}

/// From this address of the machine's own.
fn from(source: [u8; 4], to: SocketAddr) -> TcpStream {
    use rustix::net::{AddressFamily, SocketType, bind, connect, socket};
    let socket = socket(AddressFamily::INET, SocketType::STREAM, None).expect("a socket");
    bind(&socket, &SocketAddr::from((source, 0))).expect("an address of loopback");
    connect(&socket, &to).expect("it listens");
    let stream = TcpStream::from(socket);
    stream.set_read_timeout(Some(PATIENCE)).expect("a socket");
    stream
}

#[test]
fn load_balancers_say_for_whom_they_connect_and_nobody_else_may() {
    let folder = tempfile::tempdir().expect("a folder");
    let authority = Authority::new();
    pair(folder.path(), "adt", &authority.server("localhost", 4000));
    let listener = "proxy-protocol: 127.0.0.2, allow: [10.1.0.0/16, \"2001:db8::/32\", 127.0.0.3], limits: { handshake: 1s }";
    let daemon = site(folder.path(), listener);
    let address = daemon.address("adt on ");
    let balancer = |header: &[u8]| {
        let mut stream = from([127, 0, 0, 2], address);
        stream.write_all(header).expect("it reads");
        stream
    };
    let peer = |control_id: &str| {
        let found = run(folder.path(), &["journal", "search", "--control-id", control_id, "--json"]).expect(0).out;
        let found: serde_json::Value = serde_json::from_str(found.lines().next().expect("a message")).expect("JSON");
        let number = found["id"].as_u64().unwrap_or_else(|| panic!("{found}")).to_string();
        let shown = run(folder.path(), &["journal", "show", &number, "--json"]).expect(0).out;
        let shown: serde_json::Value = serde_json::from_str(&shown).expect("JSON");
        shown["peer"].as_str().unwrap_or_else(|| panic!("{shown}")).to_owned()
    };
    // With the message in the same packet, and each byte of the header in its own.
    let mut together = from([127, 0, 0, 2], address);
    together.write_all(&[b"PROXY TCP4 10.1.2.3 127.0.0.1 4711 2575\r\n".to_vec(), frame(&admit("v1", "1"))].concat()).expect("it reads");
    assert!(answer(&mut together).expect("an answer").contains("MSA|AA|v1"));
    assert_eq!(peer("v1"), "10.1.2.3:4711");
    let mut slowly = balancer(b"");
    slowly.set_nodelay(true).expect("a socket");
    for byte in version_2(1, [10, 1, 9, 9], 40_000) {
        slowly.write_all(&[byte]).expect("it reads");
    }
    accepted(&mut slowly, "v2");
    assert_eq!(peer("v2"), "10.1.9.9:40000");
    accepted(&mut balancer(b"PROXY TCP6 2001:db8::7 ::1 5 2575\r\n"), "v6");
    assert_eq!(peer("v6"), "[2001:db8::7]:5");
    // The balancer's own look whether somebody is there, which `allow` does not name.
    accepted(&mut balancer(&version_2(0, [0; 4], 0)), "local");
    assert!(peer("local").starts_with("127.0.0.2:"));
    // Somebody who is not behind a balancer.
    accepted(&mut from([127, 0, 0, 3], address), "direct");

    let shut = |mut stream: TcpStream, id: &str| {
        let answer = exchange(&mut stream, &admit(id, "1"));
        assert!(answer.is_err(), "{answer:?}");
    };
    shut(balancer(b"PROXY TCP4 10.2.0.1 127.0.0.1 1 2575\r\n"), "not allowed behind it");
    shut(from([127, 0, 0, 4], address), "not allowed");
    shut(balancer(b"PROXY UNKNOWN\r\n"), "for nobody");
    counted(&daemon, "not-allowed", 3);
    shut(balancer(b""), "no header");
    shut(balancer(b"PROXY TCP4 10.1.2.3 127.0.0.1 99999 2575\r\n"), "no port");
    shut(balancer(&[b"PROXY TCP4 ".as_slice(), &[b'1'; 200]].concat()), "too long");
    counted(&daemon, "proxy-header", 3);
    // A header of somebody who is no balancer lets nobody in by another's name: it is noise.
    let mut liar = from([127, 0, 0, 3], address);
    liar.write_all(b"PROXY TCP4 10.1.2.3 127.0.0.1 4711 2575\r\n").expect("it reads");
    accepted(&mut liar, "liar");
    assert!(peer("liar").starts_with("127.0.0.3:"));

    // Behind the header comes TLS.
    write_site(folder.path(), &format!("{listener}, tls: {{ certificate: adt.pem, key: adt-key.pem }}"));
    run(folder.path(), &["reload"]).expect(0);
    let all = [&authority];
    let mut stream = Client::of(&all).over(balancer(&version_2(1, [10, 1, 5, 5], 9)));
    accepted(&mut stream, "tls");
    assert_eq!(peer("tls"), "10.1.5.5:9");
    // A balancer that says nothing.
    let mut silent = balancer(b"PROXY TCP4 ");
    let mut nothing = Vec::new();
    let _ = silent.read_to_end(&mut nothing);
    counted(&daemon, "proxy-header", 4);
}
