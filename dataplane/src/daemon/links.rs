//! Links of ports that go down and come up: said in the log, and passed on to the kernel's sides of them.

use std::time::Duration;

use nix::errno::Errno;

use crate::dpdk::{Port, interface_below};
use crate::kernel::rtnetlink::Asking;

/// Between two looks. Some drivers take a while to say.
const PAUSE: Duration = Duration::from_millis(250);

/// What a port is linked with, as it was seen last.
#[derive(Debug)]
pub(super) struct Link {
    is_up: bool,
    /// The kernel's side of the port, and whether that has a carrier.
    side: Option<(String, bool)>,
}

/// Looks after all links.
#[derive(Debug, Default)]
pub(super) struct Links {
    asking: Option<Asking>,
    due: Duration,
}

impl Link {
    pub(super) fn is_up(&self) -> bool {
        self.is_up
    }

    /// The kernel's interface beside the port follows the link from now on.
    pub(super) fn share(&mut self, interface: &str) {
        self.side = Some((interface.to_owned(), true));
    }
}

impl Links {
    /// That of a port which was just started.
    pub(super) fn first(&mut self, port: &Port) -> Link {
        let mut link = Link {
            is_up: true,
            side: None,
        };
        self.see_to(port, &mut link);
        link
    }

    /// Looks again when it is time.
    pub(super) fn look<'p>(
        &mut self,
        now: Duration,
        ports: impl Iterator<Item = (&'p Port, &'p mut Link)>,
    ) {
        if now < self.due {
            return;
        }
        self.due = now + PAUSE;
        ports.for_each(|(port, link)| self.see_to(port, link));
    }

    fn see_to(&mut self, port: &Port, link: &mut Link) {
        let is_up = self.is_up(port);
        if link.is_up != is_up {
            match is_up {
                true => tracing::info!(port = port.name(), "the link is up again"),
                false => tracing::warn!(port = port.name(), "the link is down"),
            }
            link.is_up = is_up;
        }
        if let Some((interface, carrier)) = &mut link.side
            && *carrier != is_up
        {
            // Tried once: whoever took the interface away is not told so again and again.
            *carrier = is_up;
            self.set_carrier(interface, is_up);
        }
    }

    fn is_up(&mut self, port: &Port) -> bool {
        let below = interface_below(port.device());
        port.link_up() && below.is_none_or(|interface| self.is_running(interface))
    }

    /// Unless the kernel says that it is not.
    fn is_running(&mut self, interface: &str) -> bool {
        match self.asking().map(|asking| asking.is_running(interface)) {
            Some(Err(error)) => error.raw_os_error() != Some(Errno::ENODEV as i32),
            Some(Ok(is_running)) => is_running,
            None => true,
        }
    }

    fn set_carrier(&mut self, interface: &str, is_there: bool) {
        let told = (self.asking()).map(|asking| asking.set_carrier(interface, is_there));
        if let Some(Err(error)) = told {
            tracing::warn!("the kernel's interface {interface} does not follow the link: {error}");
        }
    }

    fn asking(&mut self) -> Option<&mut Asking> {
        if self.asking.is_none() {
            self.asking = Asking::new().ok();
        }
        self.asking.as_mut()
    }
}
