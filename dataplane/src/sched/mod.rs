//! Schedulers: which real server takes a new connection.

/// The schedulers there are, by LVS's names.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Kind {
    Rr,
    Wrr,
}

impl Kind {
    pub const ALL: [Self; 2] = [Self::Rr, Self::Wrr];

    pub const fn name(self) -> &'static str {
        match self {
            Self::Rr => "rr",
            Self::Wrr => "wrr",
        }
    }

    pub fn by_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.name() == name)
    }
}
