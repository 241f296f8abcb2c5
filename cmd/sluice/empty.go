package main

import (
	"os"
	"reflect"
	"slices"

	"github.com/alecthomas/kong"
)

// An empty text is no value. A script that forgot to set something would pass `--data ""` or
// `SLUICE_LISTEN=`, and mean this folder, all addresses, or everything. So an empty variable counts
// as not set, and an empty argument is refused. Flags with the tag `empty` take an empty text;
// their help says what it means.

// unsetEmpty ignores variables that are set to the empty text. It is for kong.PostBuild.
func unsetEmpty(k *kong.Kong) error {
	return kong.Visit(k.Model, func(node kong.Visitable, next kong.Next) error {
		if v, ok := node.(*kong.Value); ok {
			v.Tag.Envs = slices.DeleteFunc(
				slices.Clone(v.Tag.Envs), func(name string) bool { return os.Getenv(name) == "" },
			)
		}
		return next(nil)
	})
}

// refuseEmpty gives an error for the first empty argument on the command line that must not be
// empty.
func refuseEmpty(c *kong.Context) error {
	for _, p := range c.Path {
		v := p.Positional
		if p.Flag != nil {
			v = p.Flag.Value
		}
		if v == nil || v.Tag.Has("empty") || !blank(c.Value(p)) {
			continue
		}
		if p.Flag != nil {
			return usageError("--" + v.Name + " is empty: give a value, or leave it out")
		}
		return usageError("an empty argument is no " + v.Name)
	}
	return nil
}

// blank reports whether a value is an empty text, an empty list, or a list with an empty text.
func blank(v reflect.Value) bool {
	switch v.Kind() {
	case reflect.Pointer:
		return !v.IsNil() && blank(v.Elem())
	case reflect.String:
		return v.Len() == 0
	case reflect.Slice:
		for i := range v.Len() {
			if blank(v.Index(i)) {
				return true
			}
		}
		return v.Len() == 0
	}
	return false
}
