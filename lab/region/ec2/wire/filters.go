package wire

import (
	"encoding/base64"
	"maps"
	"slices"
	"strings"

	"github.com/zonewise/zonewise/lab/region/ec2"
)

// filters say what values a record has for the name of a filter.
type filters[T any] map[string]func(T) []string

// selectBy keeps the records that every Filter of the request lets through: one of its values is one of
// the record's. Filters by tag work on every record.
func selectBy[T any](q *query, all []T, known filters[T], tags func(T) ec2.Tags) []T {
	for _, f := range q.items("Filter") {
		name, wanted := f.text("Name"), f.list("Value")
		of, ok := known[name]
		if !ok {
			of, ok = byTag(name, tags)
		}
		if !ok {
			q.fail(fault(codeValue, "The filter '%s' is invalid", name))
			return nil
		}
		all = slices.DeleteFunc(all, func(t T) bool {
			return !slices.ContainsFunc(of(t), func(value string) bool {
				return slices.ContainsFunc(wanted, func(pattern string) bool { return match(pattern, value) })
			})
		})
	}
	return all
}

func byTag[T any](name string, tags func(T) ec2.Tags) (func(T) []string, bool) {
	if tags == nil {
		return nil, false
	}
	if key, ok := strings.CutPrefix(name, "tag:"); ok {
		return func(t T) []string {
			if v, ok := tags(t)[key]; ok {
				return []string{v}
			}
			return nil
		}, true
	}
	switch name {
	case "tag-key":
		return func(t T) []string { return slices.Collect(maps.Keys(tags(t))) }, true
	case "tag-value":
		return func(t T) []string { return slices.Collect(maps.Values(tags(t))) }, true
	}
	return nil, false
}

// match compares a value with a pattern, in which * is any text, ? any one character, and \ takes the
// meaning from the next.
func match(pattern, value string) bool {
	p, v := []rune(pattern), []rune(value)
	// After a star: where to go on when the rest does not fit, with one more character under the star.
	star, resume := -1, 0
	i, j := 0, 0
	for j < len(v) {
		literal := i < len(p) && p[i] == '\\' && i+1 < len(p)
		switch {
		case literal && p[i+1] == v[j]:
			i, j = i+2, j+1
		case i < len(p) && p[i] == '*':
			star, resume = i, j
			i++
		case !literal && i < len(p) && (p[i] == '?' || p[i] == v[j]):
			i, j = i+1, j+1
		case star >= 0:
			resume++
			i, j = star+1, resume
		default:
			return false
		}
	}
	for i < len(p) && p[i] == '*' {
		i++
	}
	return i == len(p)
}

// chosen are the records that a request names by a list of identifiers, or all; sorted by identifier.
func chosen[T any](q *query, parameter string, all map[string]T, missing func(string) error) []T {
	ids := q.list(parameter)
	if len(ids) == 0 {
		ids = slices.Collect(maps.Keys(all))
	}
	slices.Sort(ids)
	var out []T
	for _, id := range slices.Compact(ids) {
		record, ok := all[id]
		if !ok {
			q.fail(missing(id))
			return nil
		}
		out = append(out, record)
	}
	return out
}

// Bounds of MaxResults.
const (
	minResults = 5
	maxResults = 1000
)

// paged cuts out of sorted records what comes after NextToken, and no more than MaxResults of them. With
// identifiers in the request there are no pages.
func paged[T any](q *query, parameter string, all []T, id func(T) string) (page []T, next string) {
	size := q.number("MaxResults")
	switch {
	case q.at("MaxResults").has && len(q.items(parameter)) > 0:
		q.fail(fault("InvalidParameterCombination", "The parameter %sSet cannot be used with the parameter maxResults", lower(parameter)))
	case q.at("MaxResults").has && size < minResults:
		q.fail(fault(codeValue, "Value ( %d ) for parameter maxResults is invalid. Expecting a value greater than or equal to %d.", size, minResults))
	}
	size = min(size, maxResults)
	if token := q.text("NextToken"); token != "" {
		after, err := base64.RawURLEncoding.DecodeString(token)
		if err != nil {
			q.fail(fault("InvalidNextToken", "The specified next token '%s' is invalid.", token))
		}
		i := slices.IndexFunc(all, func(t T) bool { return id(t) > string(after) })
		if i < 0 {
			i = len(all)
		}
		all = all[i:]
	}
	if size > 0 && len(all) > size {
		return all[:size], base64.RawURLEncoding.EncodeToString([]byte(id(all[size-1])))
	}
	return all, ""
}
