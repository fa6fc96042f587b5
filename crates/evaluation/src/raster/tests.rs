//! Every word of a figure is drawn, inside the picture, and none lies on another.

use resvg::tiny_skia::Rect;
use resvg::usvg::{Group, Node};

use super::*;
use crate::record::run_of_a_test;
use crate::{figure_5, figure_6};

/// Where each text of the drawing ended up; those of which no letter was drawn have no place.
fn texts(svg: &str) -> Vec<(String, Rect)> {
    fn walk(group: &Group, found: &mut Vec<(String, Rect)>) {
        for node in group.children() {
            match node {
                Node::Group(group) => walk(group, found),
                Node::Text(text) => {
                    let content = text.chunks().iter().map(|chunk| chunk.text()).collect();
                    assert!(!text.layouted().is_empty(), "{content:?} was not drawn");
                    found.push((content, text.abs_bounding_box()));
                }
                Node::Path(_) | Node::Image(_) => {}
            }
        }
    }
    let mut found = Vec::new();
    walk(tree(svg).expect("a drawing").root(), &mut found);
    found
}

#[test]
fn every_word_of_a_figure_is_drawn_and_none_lies_on_another() {
    let run = run_of_a_test();
    for (name, svg) in [("figure 5", figure_5(&run)), ("figure 6", figure_6(&run))] {
        let texts = texts(&svg);
        assert_eq!(texts.len(), svg.matches("<text").count(), "{name}: a text was lost");
        for (content, place) in &texts {
            let is_inside = place.left() >= 0.0
                && place.top() >= 0.0
                && place.right() <= 1_200.0
                && place.bottom() <= 640.0;
            assert!(is_inside, "{name}: {content:?} leaves the picture: {place:?}");
        }
        for (number, (one, place)) in texts.iter().enumerate() {
            for (other, elsewhere) in &texts[number + 1..] {
                let apart = place.right() <= elsewhere.left()
                    || elsewhere.right() <= place.left()
                    || place.bottom() <= elsewhere.top()
                    || elsewhere.bottom() <= place.top();
                assert!(apart, "{name}: {one:?} lies on {other:?}");
            }
        }
    }
}

#[test]
fn figures_name_their_units_instances_and_decisions() {
    let run = run_of_a_test();
    let has = |svg: &str, words: &[&str]| {
        let all: Vec<String> = texts(svg).into_iter().map(|(content, _)| content).collect();
        for word in words {
            assert!(all.iter().any(|text| text.contains(word)), "{word} is not in {all:?}");
        }
    };
    let both =
        ["balancer-1", "proxy-1", "proxy-4", "cassandra-1", "minutes", "to launch", &run.caption];
    has(&figure_5(&run), &[&both[..], &["MB/s", "calls per second", "total capacity"]].concat());
    has(&figure_6(&run), &[&both[..], &["percent of one core"]].concat());
}

#[test]
fn the_picture_is_a_png_of_twice_the_size() {
    let picture = png(&figure_6(&run_of_a_test())).expect("a picture");
    assert_eq!(picture.get(..8), Some(&b"\x89PNG\r\n\x1a\n"[..]));
    let number = |at: usize| u32::from_be_bytes(picture[at..at + 4].try_into().expect("four"));
    assert_eq!((number(16), number(20)), (2_400, 1_280));
}

#[test]
fn a_run_without_a_sample_has_figures_too() {
    let mut run = run_of_a_test();
    (run.samples, run.moments, run.decisions) = (Vec::new(), Vec::new(), Vec::new());
    for svg in [figure_5(&run), figure_6(&run)] {
        png(&svg).expect("a picture");
    }
}

#[test]
fn what_is_no_drawing_is_told() {
    assert!(matches!(png("no drawing"), Err(RasterError::Drawing { .. })));
}
