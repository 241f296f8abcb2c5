// Command mutants plants bugs, one at a time, and runs the tests that are named for each, to see
// whether they find it: a test that can't fail proves nothing.
//
// It owns the table of planted bugs ([table], one file for each part of the program) and how one is
// run. The bugs are texts in that table. Each is laid over its file for one build (go test
// -overlay), so nothing of it is ever in the program. It does not own the tests. A bug that no test
// finds needs one.
//
//	go run ./internal/test/mutants [-list] [-new] [-parallel N] [-record FILE]
//		[-write docs/mutants.md] [NAME…]
//
// A NAME selects the mutants whose names contain it, -new those that docs/mutants.md does not have.
// -record keeps the results in a file. A mutant that was caught before is not run again as long as
// its row, and all code that its tests are built from, are the same. So a run that was stopped goes
// on, and several runs make one page. -write needs that all tests pass without a mutant; the page
// says which mutants have no result.
//
// The command writes a line as each mutant ends. A test catches its mutant if it fails, or if the
// test process ends while that test runs: os.Exit, a panic, a signal. The second kind is marked
// with "ended".
//
// Exit status: 0 if each named test caught its mutant; 1 if one passed or did not end in time, or
// the page has a mutant without a result; 2 if the table does not fit the program (a text that is
// not there exactly once, code that does not build).
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"sync"
	"time"
)

// mutant is a bug that is planted.
type mutant struct {
	name    string // kebab-case, what the program does wrong
	promise int    // of docs/promises.md, that it breaks
	file    string // relative to the module
	old     string // is there exactly once
	new     string
	// tests must all catch it: package.TestName, where the package is relative to the module.
	tests []string
}

// table gives all mutants, by promise.
func table() []mutant {
	all := slices.Concat(
		ofSession(), ofUpload(), ofCatalog(), ofStores(), ofPacks(), ofFronts(), ofBounds(), ofMeetings(), ofRecords(),
		ofCleanup(), ofWire(), ofWaits(), ofFolder(), ofSalvage(), ofAccess(), ofAudit(), ofLimits(), ofIssuer(),
		ofFront(), ofGrants(), ofHistories(),
	)
	all = append(all, ofClient()...)
	all = append(all, ofPromised()...)
	slices.SortStableFunc(all, func(a, b mutant) int { return a.promise - b.promise })
	return all
}

// errTable: the table does not fit the program.
var errTable = errors.New("the table does not fit")

// page is the table for people, with the mutants that were caught.
const page = "docs/mutants.md"

// options say what is run, and how.
type options struct {
	names         []string
	list, onlyNew bool
	parallel      int
	record        string // file of results; "" for none
	write         string // file of the page; "" for none
	limit         time.Duration
}

func main() {
	var o options
	flag.BoolVar(&o.list, "list", false, "only list the mutants")
	flag.BoolVar(&o.onlyNew, "new", false, "only those that are not in "+page)
	flag.IntVar(&o.parallel, "parallel", 2, "how many mutants are tried at a time")
	flag.StringVar(&o.record, "record", "", "keep the results in this `file`, and do not repeat those that still hold")
	flag.StringVar(&o.write, "write", "", "write the table, and what has been caught, to this `file`")
	flag.DurationVar(&o.limit, "timeout", 4*time.Minute, "how long the tests of one mutant and package may take")
	flag.Parse()
	o.names = flag.Args()
	os.Exit(run(context.Background(), ".", table(), o, os.Stdout))
}

// run tries the chosen ones of all mutants. It returns the exit status.
func run(ctx context.Context, root string, all []mutant, o options, out io.Writer) int {
	fail := func(err error) int {
		fmt.Fprintln(out, err)
		return 2
	}
	chosen, err := choose(root, all, o)
	if err != nil {
		return fail(err)
	}
	if o.list {
		for _, m := range chosen {
			fmt.Fprintf(out, "%2d  %s  %s\n", m.promise, m.name, m.file)
		}
		return 0
	}
	rec, err := openRecord(ctx, root, o.record, all)
	if err != nil {
		return fail(err)
	}
	defer rec.close()
	chosen = slices.DeleteFunc(chosen, func(m mutant) bool { return rec.caught[m.name] != nil })
	status := tryAll(ctx, root, chosen, rec, o, out)
	if o.write == "" {
		return status
	}
	// All tests of a package, and not those of one mutant: that may take longer.
	bad, err := unsound(ctx, root, all, 4*o.limit)
	if err == nil && len(bad) > 0 {
		err = fmt.Errorf("not written: these tests do not pass without a mutant: %s", strings.Join(bad, ", "))
	}
	if err == nil {
		err = os.WriteFile(o.write, document(all, rec.caught), 0o666)
	}
	if err != nil {
		return fail(err)
	}
	if left := len(all) - len(rec.caught); left > 0 {
		fmt.Fprintf(out, "%s has %d of %d mutants without a result\n", o.write, left, len(all))
		status = max(status, 1)
	}
	return status
}

// choose gives the mutants that the options select.
func choose(root string, all []mutant, o options) ([]mutant, error) {
	known := map[string]bool{}
	if o.onlyNew {
		var err error
		if known, err = onPage(root); err != nil {
			return nil, err
		}
	}
	var chosen []mutant
	for _, m := range all {
		named := len(o.names) == 0 ||
			slices.ContainsFunc(o.names, func(n string) bool { return strings.Contains(m.name, n) })
		if named && !known[m.title()] {
			chosen = append(chosen, m)
		}
	}
	if len(chosen) == 0 {
		return nil, errors.New("no mutant is chosen")
	}
	return chosen, nil
}

// tryAll tries mutants, several at a time, and says of each how it went.
func tryAll(ctx context.Context, root string, chosen []mutant, rec *record, o options, out io.Writer) (status int) {
	var mu sync.Mutex // guards out, rec, status and done
	var wg sync.WaitGroup
	next, done := make(chan mutant), 0
	for range max(o.parallel, 1) {
		wg.Go(func() {
			for m := range next {
				began := time.Now()
				found, err := m.try(ctx, root, o.limit)
				took := time.Since(began).Round(100 * time.Millisecond)
				mu.Lock()
				if done++; err == nil {
					err = rec.add(ctx, m, found)
				}
				s, line := report(m, found, err)
				status = max(status, s)
				fmt.Fprintf(out, "%3d/%d  %s (%v)\n", done, len(chosen), line, took)
				mu.Unlock()
			}
		})
	}
	for _, m := range chosen {
		next <- m
	}
	close(next)
	wg.Wait()
	return status
}

// report gives the exit status and the line for one mutant.
func report(m mutant, found map[string]verdict, err error) (status int, line string) {
	if err != nil {
		return 2, fmt.Sprintf("BROKEN    %-40s %v", m.name, err)
	}
	var by, survived []string
	for _, t := range m.tests {
		switch found[t] {
		case failed:
			by = append(by, t)
		case ended:
			by = append(by, t+" (ended)")
		default:
			survived = append(survived, t)
		}
	}
	if len(survived) > 0 {
		return 1, fmt.Sprintf("SURVIVED  %-40s %s", m.name, strings.Join(survived, ", "))
	}
	return 0, fmt.Sprintf("caught    %-40s by %s", m.name, strings.Join(by, ", "))
}
