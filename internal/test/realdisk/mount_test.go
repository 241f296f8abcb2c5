package realdisk

import (
	"crypto/rand"
	"errors"
	"fmt"
	"net"
	"net/rpc"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"sluice/internal/test/load"
)

// kind is a file system.
type kind struct {
	name    string
	size    int64
	mkfs    []string
	options string
}

var kinds = []kind{
	{name: "ext4", size: 256 << 20, mkfs: []string{"mkfs.ext4", "-q", "-F", "-E", "lazy_itable_init=0,lazy_journal_init=0,nodiscard"}},
	// An image has the UUID of a disk that is mounted.
	{name: "xfs", size: 320 << 20, mkfs: []string{"mkfs.xfs", "-q", "-f", "-K"}, options: "nouuid"},
}

// need skips a test if the machine lacks something, and says what.
func need(t *testing.T, k kind) {
	t.Helper()
	if withRace {
		t.Skip("runs the program without the race detector: go test ./internal/test/realdisk")
	}
	if why := os.Getenv(outside); why != "" {
		t.Skip("needs to mount file systems: " + why)
	}
	for _, dev := range []string{"/dev/fuse", "/dev/loop-control"} {
		if _, err := os.Stat(dev); err != nil {
			t.Skipf("needs %s: %v", dev, err)
		}
	}
	if _, err := exec.LookPath(k.mkfs[0]); err != nil {
		t.Skipf("needs %s, which is not installed: %v", k.mkfs[0], err)
	}
	known, err := os.ReadFile("/proc/filesystems")
	if err != nil {
		t.Skip(err)
	}
	for _, name := range []string{k.name, "fuse"} {
		if !slices.Contains(strings.Fields(string(known)), name) {
			t.Skipf("needs the file system %s, which this kernel has no driver for (/proc/filesystems)", name)
		}
	}
}

// shelf has disks, in a process of its own, so that a wait for a disk never waits for itself.
type shelf struct {
	t     *testing.T
	kind  kind
	dir   string
	boot  string // a file with the machine's boot id
	calls *rpc.Client
	names int
}

// newShelf starts the process. It ends with the test, or with the tests' process, however that
// ends.
func newShelf(t *testing.T, k kind) *shelf {
	t.Helper()
	need(t, k)
	s := &shelf{t: t, kind: k, dir: t.TempDir(), boot: filepath.Join(t.TempDir(), "boot")}
	ends, err := syscall.Socketpair(syscall.AF_UNIX, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	ours, theirs := os.NewFile(uintptr(ends[0]), "disks"), os.NewFile(uintptr(ends[1]), "disks")
	defer ours.Close() // FileConn has a copy
	conn, err := net.FileConn(ours)
	if err != nil {
		t.Fatal(err)
	}
	fuse, err := mountDisks(s.dir)
	if err != nil {
		t.Fatal(err)
	}
	// The process must see no mount of ours. If it were the last to die, its end would else wait
	// for a file system that waits for it.
	cmd := exec.Command("/proc/self/exe")
	cmd.Env = append(os.Environ(), serving+"=/dev/fd/3")
	cmd.Stdin, cmd.Stderr, cmd.ExtraFiles = theirs, os.Stderr, []*os.File{fuse}
	cmd.SysProcAttr = &syscall.SysProcAttr{Unshareflags: syscall.CLONE_NEWNS}
	err = cmd.Start()
	theirs.Close()
	fuse.Close()
	if err != nil {
		t.Fatal(err)
	}
	s.calls = rpc.NewClient(conn)
	t.Cleanup(func() {
		if err := errors.Join(unix.Unmount(s.dir, unix.MNT_DETACH), s.calls.Close(), cmd.Wait()); err != nil {
			t.Errorf("the process that serves the disks: %v", err)
		}
	})
	s.call("Count", "", &Counts{}, "there is no disk ") // it is there
	s.reboot()
	if err := unix.Mount(s.boot, bootID, "", unix.MS_BIND, ""); err != nil {
		t.Fatalf("another boot id for a machine that reboots: %v", err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(bootID, 0); err != nil {
			t.Errorf("the boot id: %v", err)
		}
	})
	return s
}

// mountDisks mounts a folder, and gives the descriptor through which it is served.
func mountDisks(dir string) (*os.File, error) {
	fd, err := unix.Open("/dev/fuse", unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("opening /dev/fuse: %w", err)
	}
	f := os.NewFile(uintptr(fd), "/dev/fuse")
	options := fmt.Sprintf("fd=%d,rootmode=40000,user_id=0,group_id=0,max_read=%d", fd, maxWrite)
	if err := unix.Mount("sluice-realdisk", dir, "fuse.sluice", unix.MS_NOSUID|unix.MS_NODEV, options); err != nil {
		return nil, errors.Join(fmt.Errorf("mounting a folder of disks: %w", err), f.Close())
	}
	return f, nil
}

// bootID is where the kernel tells one run of the machine from the next.
const bootID = "/proc/sys/kernel/random/boot_id"

// reboot makes the server see the next run of the machine.
func (s *shelf) reboot() {
	s.t.Helper()
	if err := os.WriteFile(s.boot, []byte(rand.Text()), 0o600); err != nil {
		s.t.Fatal(err)
	}
}

// call calls the process that serves the disks. One error, if given, is allowed.
func (s *shelf) call(method string, in, out any, but ...string) {
	s.t.Helper()
	if out == nil {
		out = &struct{}{}
	}
	if err := s.calls.Call("Disks."+method, in, out); err != nil && !slices.Contains(but, err.Error()) {
		s.t.Fatalf("%s: %v", method, err)
	}
}

// name gives a name that no disk has.
func (s *shelf) name() string {
	s.names++
	return fmt.Sprintf("disk-%d", s.names)
}

// format makes a disk with an empty file system, flushed.
func (s *shelf) format() string {
	s.t.Helper()
	name := s.name()
	s.call("Make", Make{Name: name, Size: s.kind.size}, nil)
	dev := s.attach(name)
	defer dev.Close()
	if out, err := exec.Command(s.kind.mkfs[0], append(s.kind.mkfs[1:], dev.Name())...).CombinedOutput(); err != nil {
		s.t.Fatalf("%s: %v: %s", s.kind.mkfs[0], err, out)
	}
	return name
}

func (s *shelf) fail(disk string, f Fault) {
	s.t.Helper()
	s.call("Fail", Named{Disk: disk, Fault: f}, nil)
}

func (s *shelf) counts(disk string) (c Counts) {
	s.t.Helper()
	s.call("Count", disk, &c)
	return c
}

// take takes an image of a disk at work. The facts that it gives were true of the server before.
func (s *shelf) take(t Take, facts *load.Facts) (known *load.Facts, of Taken, err error) {
	if err := s.calls.Call("Disks.Take", t, &of); err != nil {
		return nil, of, err
	}
	known, err = facts.Frozen(func() error { return s.calls.Call("Disks.GoOn", t.Disk, &struct{}{}) })
	return known, of, err
}

// attach puts a loop device over a disk. The device goes with its last user.
func (s *shelf) attach(disk string) *os.File {
	s.t.Helper()
	file, err := os.OpenFile(filepath.Join(s.dir, disk), os.O_RDWR, 0)
	if err != nil {
		s.t.Fatal(err)
	}
	defer file.Close()
	ctl, err := os.OpenFile("/dev/loop-control", os.O_RDWR, 0)
	if err != nil {
		s.t.Fatal(err)
	}
	defer ctl.Close()
	for range 100 { // others may be as quick
		var n int
		if n, err = unix.IoctlRetInt(int(ctl.Fd()), unix.LOOP_CTL_GET_FREE); err != nil {
			break
		}
		var dev *os.File
		if dev, err = os.OpenFile(fmt.Sprintf("/dev/loop%d", n), os.O_RDWR, 0); err != nil {
			break
		}
		config := unix.LoopConfig{Fd: uint32(file.Fd()), Info: unix.LoopInfo64{Flags: unix.LO_FLAGS_AUTOCLEAR}}
		if err = unix.IoctlLoopConfigure(int(dev.Fd()), &config); err == nil {
			return dev
		}
		dev.Close()
		if !errors.Is(err, unix.EBUSY) {
			break
		}
	}
	s.t.Fatalf("putting a loop device over a file: %v", err)
	return nil
}

// mounted is a disk in use.
type mounted struct {
	*shelf
	disk, dir string
	gone      bool
}

// mount mounts a disk: then the kernel reads its journal. The test's end unmounts it.
func (s *shelf) mount(disk string) *mounted {
	s.t.Helper()
	dev := s.attach(disk)
	defer dev.Close()
	m := &mounted{shelf: s, disk: disk, dir: s.t.TempDir()}
	if err := unix.Mount(dev.Name(), m.dir, s.kind.name, 0, s.kind.options); err != nil {
		s.t.Fatalf("mounting %s: %v", s.kind.name, err)
	}
	s.t.Cleanup(m.unmount)
	return m
}

// unmount releases the disk, and is patient with processes that are just ending.
func (m *mounted) unmount() {
	if m.gone {
		return
	}
	m.gone = true
	err := unix.EBUSY
	for range 200 {
		if got := unix.Unmount(m.dir, 0); got == nil {
			return
		} else if !errors.Is(got, unix.EBUSY) {
			m.t.Errorf("unmounting: %v", got)
			break
		}
		time.Sleep(10 * time.Millisecond)
	}
	m.t.Errorf(
		"unmounting: %v; it is done when nobody uses it any more",
		errors.Join(err, unix.Unmount(m.dir, unix.MNT_DETACH)),
	)
}

// again mounts the disk anew, as after its owner has repaired it.
func (m *mounted) again() *mounted {
	m.t.Helper()
	m.unmount()
	return m.mount(m.disk)
}

// remove unmounts a disk and forgets it.
func (m *mounted) remove() {
	m.t.Helper()
	m.unmount()
	m.call("Remove", m.disk, nil)
}

// data is the server's folder.
func (m *mounted) data() string { return filepath.Join(m.dir, "data") }
