//! How long servers take to answer a SYN.

use super::*;

fn answers(t: &Testbed, server: usize) -> (u64, u64) {
    let page = &t.page.servers[server];
    (page.answers.get(), page.answers_us.get())
}

#[test]
fn a_syn_is_timed_until_its_first_answer() {
    let mut t = Testbed::nat(Tcp, VIP, &[RS]);
    t.pass(0, &tcp(C, VIP, "S"));
    t.pass(1000, &tcp(C, VIP, "S"));
    assert_eq!(answers(&t, 0), (0, 0));
    t.pass(1007, &tcp(RS, C, "SA"));
    assert_eq!(answers(&t, 0), (1, 1_007_000), "from the first SYN on");
    t.pass(1010, &tcp(RS, C, "SA"));
    t.pass(1011, &tcp(C, VIP, "A"));
    assert_eq!(answers(&t, 0).0, 1, "a second answer is none");
    let mut counts = [0; crate::counters::BUCKETS];
    let sum = t.page.pace.handshakes.add_to(&mut counts);
    assert_eq!((sum, counts.iter().sum::<u64>()), (1_007_000_000, 1));
}

#[test]
fn of_two_connections_that_share_a_place_the_later_one_is_timed() {
    let mut stamps = super::super::handshake::Handshakes::new(4);
    stamps.asked(1);
    stamps.asked(5);
    assert_eq!(stamps.answered(1), None);
    assert_eq!(stamps.answered(5), Some(0));
    assert_eq!(stamps.answered(5), None);
}

#[test]
fn what_the_director_does_not_see_is_not_timed() {
    let mut t = Testbed::by(ForwardMode::Direct, Tcp, VIP, &[RS]);
    t.pass(0, &tcp(C, VIP, "S"));
    t.pass(5, &tcp(C, VIP, "A"));
    assert_eq!(answers(&t, 0), (0, 0));
}
