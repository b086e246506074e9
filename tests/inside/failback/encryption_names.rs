//! Names of replicas, from inside.

use super::*;

#[test]
fn two_identities_never_have_one_name() {
    assert_eq!(plain_name("db1-system_2.x"), "db1-system_2.x");
    assert_eq!(plain_name("a/b+c%2f ä"), "a%2fb%2bc%252f%20%c3%a4");
}
