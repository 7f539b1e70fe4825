//! Enums that are stored as one byte, with the conversion from that byte.

macro_rules! code_enum {
    ($(#[$doc:meta])* $name:ident { $($(#[$vdoc:meta])* $variant:ident = $value:literal,)* }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        #[repr(u8)]
        pub enum $name { $($(#[$vdoc])* $variant = $value,)* }

        impl $name {
            /// Returns the variant with this code, or `None` if there is none.
            #[inline]
            pub fn from_code(code: u8) -> Option<Self> {
                match code { $($value => Some(Self::$variant),)* _ => None }
            }
        }
    };
}

pub(super) use code_enum;
