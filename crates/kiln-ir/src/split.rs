//! stub
use crate::Module;
pub(crate) fn split(_module: &Module) -> Option<Vec<Module>> { None }
