//go:build !unix

package cli

import "errors"

func replace(string, []string) error { return errors.New("lab: needs Linux") }
