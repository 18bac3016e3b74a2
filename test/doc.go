// Package test holds the stories: what a user types in a lab, and what must come back. They are
// built with the tag story, need root, and run one after the other in one lab:
//
//	make test-story
//	go test -tags story -v -run TestStories/07 ./test
//
// Those in the other folders are told in labs of their own, to each program that can do what they ask.
//
// A story is a file in stories/, a testscript (github.com/rogpeppe/go-internal/testscript) that
// reads like a terminal:
//
//	$ LINE                  runs the line in bash, as typed. It must succeed; "! $ LINE" must fail.
//	                        Variables that it sets are there in the lines after it.
//	eventually 30s LINE     runs the line again and again until it succeeds.
//	stdout REGEXP           looks at what the last line printed; see testscript for more.
//	spread 3 18 50          the last line printed what `uniq -c` prints: 3 lines, each count between
//	                        18 and 50.
//
// Each story has a namespace of its own, in which kubectl and zonewise work without -n. $LAB is the
// name of the lab.
package test
