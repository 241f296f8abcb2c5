package main

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// peers are built from the versions that peers/go.mod pins.
var peers = []struct{ exe, pkg, module string }{ // exe is the name of the system, too
	{"tusd", "github.com/tus/tusd/v2/cmd/tusd", "github.com/tus/tusd/v2"},
	{"registry", "github.com/distribution/distribution/v3/cmd/registry", "github.com/distribution/distribution/v3"},
	{"versitygw", "github.com/versity/versitygw/cmd/versitygw", "github.com/versity/versitygw"},
}

// build makes the programs of the systems that take part. For a program that is built already it
// only looks at the cache.
func build(ctx context.Context, here, bins, sluice, before string, has func(system string) bool) error {
	if err := os.MkdirAll(bins, 0o755); err != nil {
		return err
	}
	run := func(dir string, args ...string) error {
		cmd := exec.CommandContext(ctx, "go", args...)
		cmd.Dir = dir
		if out, err := cmd.CombinedOutput(); err != nil {
			return fmt.Errorf("go %s: %w: %s", strings.Join(args, " "), err, out)
		}
		return nil
	}
	exe := filepath.Join(bins, "sluice")
	if sluice == "" {
		if err := run(filepath.Dir(here), "build", "-trimpath", "-o", exe, "./cmd/sluice"); err != nil {
			return err
		}
	} else if err := linkTo(sluice, exe); err != nil {
		return err
	}
	if before != "" {
		if err := linkTo(before, filepath.Join(bins, otherBuild)); err != nil {
			return err
		}
	}
	if err := run(here, "build", "-o", filepath.Join(bins, "floors"), "./floors"); err != nil {
		return err
	}
	at := filepath.Join(here, "peers")
	if has("tusd-synced") {
		if err := run(at, "build", "-o", filepath.Join(bins, "tusdsynced"), "./tusdsynced"); err != nil {
			return err
		}
	}
	for _, p := range peers {
		if !has(p.exe) {
			continue
		}
		if err := run(at, "build", "-o", filepath.Join(bins, p.exe), p.pkg); err != nil {
			return err
		}
	}
	return nil
}

// linkTo puts a program where the others are.
func linkTo(program, at string) error {
	_ = os.Remove(at) // it may be a link already
	abs, err := filepath.Abs(program)
	if err != nil {
		return err
	}
	return os.Symlink(abs, at)
}

// versions says which peers were built.
func versions(ctx context.Context, here string) string {
	args := []string{"list", "-m", "-f", "{{.Path}} {{.Version}}"}
	for _, p := range peers {
		args = append(args, p.module)
	}
	cmd := exec.CommandContext(ctx, "go", args...)
	cmd.Dir = filepath.Join(here, "peers")
	out, err := cmd.Output()
	if err != nil {
		return "unknown versions"
	}
	return strings.ReplaceAll(strings.TrimSpace(strings.ReplaceAll(string(out), "github.com/", "")), "\n", ", ")
}
