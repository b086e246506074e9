//! `Debug` for types whose contents are of no use in a message, or secret.

/// Shows no more than the name of a type.
macro_rules! opaque {
    ($name:ident $(<$lifetime:lifetime>)?) => {
        opaque!(@ [] $name [$(<$lifetime>)?]);
    };
    ($name:ident<$($param:ident),+>) => {
        opaque!(@ [<$($param),+>] $name [<$($param),+>]);
    };
    (@ [$($params:tt)*] $name:ident [$($arguments:tt)*]) => {
        impl $($params)* std::fmt::Debug for $name $($arguments)* {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.debug_struct(stringify!($name)).finish_non_exhaustive()
            }
        }
    };
}
