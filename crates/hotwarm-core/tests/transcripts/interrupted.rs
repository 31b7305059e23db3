//! Every story is cut off after each of its inputs, as if the process had died there: what was written down must be enough to come
//! back into service, also when one answer is lost on the way.

use hotwarm_core::group::{Group, step};

use crate::{good, retell, stories};

/// As a snapshot would keep it.
fn restored(group: &Group) -> Group {
    let bytes = postcard::to_allocvec(group).unwrap();
    let read: Group = postcard::from_bytes(&bytes).unwrap();
    assert_eq!(read, *group);
    read
}

#[test]
fn from_every_state_of_every_story_it_comes_back_into_service() {
    for (name, text) in stories() {
        let (_, story) = retell(&name, &text);
        for (number, (before, input)) in story.past.iter().enumerate() {
            let (after, _) = step(restored(before), input);
            if let Err(why) = good::drive(restored(&after), None) {
                panic!("{name}: after input {number} ({input:?}): {why}");
            }
        }
    }
}

#[test]
fn a_lost_answer_is_given_again() {
    for (name, text) in stories() {
        let (_, story) = retell(&name, &text);
        for (number, (before, _)) in story.past.iter().enumerate() {
            for lost in 1..=12 {
                if let Err(why) = good::drive(before.clone(), Some(lost)) {
                    panic!("{name}: before input {number}, answer {lost} lost: {why}");
                }
            }
        }
    }
}

#[test]
fn any_one_input_of_a_story_may_be_lost() {
    for (name, text) in stories() {
        let (_, story) = retell(&name, &text);
        for lost in 0..story.past.len() {
            let mut group = story.past[0].0.clone();
            for (number, (_, input)) in story.past.iter().enumerate() {
                if number != lost {
                    let after_ms = input.at.since(group.at);
                    group = good::checked_step(group, input.body.clone(), after_ms).unwrap_or_else(|why| panic!("{name}: {why}"));
                }
            }
            if let Err(why) = good::drive(group, None) {
                panic!("{name}: input {lost} lost: {why}");
            }
        }
    }
}

/// The log gives every node the same inputs; every node must come to the same bytes.
#[test]
fn the_same_inputs_give_the_same_bytes() {
    for (name, text) in stories() {
        let bytes = |_| {
            let (_, story) = retell(&name, &text);
            let (before, input) = story.past.last().unwrap();
            postcard::to_allocvec(&step(before.clone(), input)).unwrap()
        };
        let [one, two] = [0, 1].map(bytes);
        assert_eq!(one, two, "{name}");
    }
}
