//! Enums whose variants have names.

/// Declares an enum and what each variant is called: as `name`, and shown.
macro_rules! named {
    ($(#[$meta:meta])* $vis:vis enum $type:ident {$(
        $(#[$doc:meta])* $variant:ident $(($of:ty))? $({$($fields:tt)*})? = $name:literal,
    )*}) => {
        $(#[$meta])*
        $vis enum $type {$(
            $(#[$doc])* $variant $(($of))? $({$($fields)*})?,
        )*}

        impl $type {
            /// Its name, without what it may carry.
            pub fn name(self) -> &'static str {
                match self {
                    $($type::$variant { .. } => $name,)*
                }
            }
        }

        impl std::fmt::Display for $type {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str(self.name())
            }
        }
    };
}

pub(crate) use named;
