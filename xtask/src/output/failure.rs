//! Makes messages of the reasons why commands fail.

use std::error::Error;
use std::fmt::Display;

use super::escape::name;

/// The reason why a command ends with exit code 1.
pub(crate) enum Failure {
    /// The whole message, which is still to be printed.
    Message(String),
    /// Everything has been printed already.
    Reported,
}

impl Failure {
    /// Makes a failure with the message `error: TEXT`; a text that begins with `error` is left as
    /// it is.
    pub(crate) fn new(text: impl Display) -> Self {
        let text = text.to_string();
        Self::Message(if text.starts_with("error") { text } else { format!("error: {text}") })
    }

    /// Makes a failure of an error and the chain of its sources.
    pub(crate) fn of(error: impl Error) -> Self {
        Self::new(chain(&error))
    }

    /// Adds to the message.
    pub(crate) fn and(self, more: &str) -> Self {
        match self {
            Self::Message(text) => Self::Message(format!("{text}; {more}")),
            Self::Reported => self,
        }
    }

    /// Makes a failure of an error and the chain of its sources. The message begins with `action`,
    /// which says what could not be done.
    pub(crate) fn while_doing(action: impl Display, error: impl Error) -> Self {
        Self::new(format!("{action}: {}", chain(&error)))
    }
}

/// Joins the message of an error and the messages of its sources:
/// `cannot write x: No space left on device`.
///
/// Every error that a command prints goes through here. Some errors include the message of their
/// source in their own; a source with which the message already ends is not repeated. Line ends in
/// a message are escaped.
pub(crate) fn chain(error: &dyn Error) -> String {
    let message = |error: &dyn Error| name(&error.to_string()).into_owned();
    let mut text = message(error);
    let mut source = error.source();
    while let Some(error) = source {
        let message = message(error);
        if !text.ends_with(&message) {
            text.push_str(": ");
            text.push_str(&message);
        }
        source = error.source();
    }
    text
}

/// The result of a command.
pub(crate) type Outcome = Result<(), Failure>;

#[cfg(test)]
mod tests {
    use super::*;

    /// An error with a message and perhaps a source.
    #[derive(Debug)]
    struct Link(&'static str, Option<Box<Link>>);

    impl Display for Link {
        fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            f.write_str(self.0)
        }
    }

    impl Error for Link {
        fn source(&self) -> Option<&(dyn Error + 'static)> {
            self.1.as_deref().map(|error| error as &dyn Error)
        }
    }

    /// A chain of errors with these messages, the outermost first.
    fn link(messages: &[&'static str]) -> Link {
        let (first, rest) = messages.split_first().unwrap();
        Link(first, (!rest.is_empty()).then(|| Box::new(link(rest))))
    }

    #[test]
    fn sources_are_printed_in_order_and_once() {
        assert_eq!(chain(&link(&["a"])), "a");
        assert_eq!(chain(&link(&["a", "b", "c"])), "a: b: c");
        assert_eq!(chain(&link(&["a: b", "b", "c"])), "a: b: c");
        assert_eq!(chain(&link(&["a: b: c", "b: c", "c"])), "a: b: c");
        assert_eq!(chain(&std::io::Error::other(link(&["a", "b"]))), "a: b");
    }

    #[test]
    fn a_failure_begins_with_error_once() {
        let message = |failure| match failure {
            Failure::Message(text) => text,
            Failure::Reported => String::new(),
        };
        assert_eq!(message(Failure::new("a")), "error: a");
        assert_eq!(message(Failure::new("error: a")), "error: a");
        assert_eq!(message(Failure::of(link(&["a", "b"]))), "error: a: b");
        assert_eq!(
            message(Failure::while_doing("cannot read x", link(&["a", "b"]))),
            "error: cannot read x: a: b"
        );
    }
}
