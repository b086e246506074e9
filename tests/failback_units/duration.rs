//! Lengths of time, as plans write them.

use std::time::Duration;

use diskdelta::failback::plan::parse_duration;

#[test]
fn a_length_of_time_has_a_number_and_a_unit_and_nothing_else() {
    assert_eq!(parse_duration("90s").unwrap(), Duration::from_secs(90));
    assert_eq!(parse_duration("5m").unwrap(), Duration::from_secs(300));
    assert_eq!(parse_duration("2h").unwrap(), Duration::from_secs(7200));
    assert_eq!(parse_duration("1d").unwrap(), Duration::from_secs(86400));
    for wrong in [
        "", "5", "m", "5 m", "-5m", "+5m", "5min", "1.5h", "99999d", "5é",
    ] {
        assert!(parse_duration(wrong).is_err(), "{wrong}");
    }
}
