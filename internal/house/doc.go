// Package house keeps the house in order. It has tests only: they read the source of both modules
// and hold it against the rules in rules_test.go, each of which says why it is there.
//
// To add a room, add its name to rooms in plan_test.go. To let a package past a rule, add it to the
// list that the rule names, with the reason.
package house
