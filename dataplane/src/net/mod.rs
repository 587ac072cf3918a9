//! stub
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HopId(pub u16);
