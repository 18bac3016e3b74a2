package bpf

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// IsCgroup tells whether the directory is a cgroup v2.
func IsCgroup(dir string) bool { return onFilesystem(dir, unix.CGROUP2_SUPER_MAGIC) }

// IsPinnable tells whether programs and maps can be pinned in the directory, or in it once it is
// made: whether it is on a bpffs.
func IsPinnable(dir string) bool {
	for dir = filepath.Clean(dir); ; dir = filepath.Dir(dir) {
		if _, err := os.Stat(dir); !errors.Is(err, fs.ErrNotExist) || dir == filepath.Dir(dir) {
			return onFilesystem(dir, unix.BPF_FS_MAGIC)
		}
	}
}

func onFilesystem(path string, magic int64) bool {
	var s unix.Statfs_t
	return unix.Statfs(path, &s) == nil && int64(s.Type) == magic
}

// CgroupID is the number by which links tell which cgroup they are attached to.
func CgroupID(dir string) (uint64, error) {
	var s unix.Stat_t
	if err := unix.Stat(dir, &s); err != nil {
		return 0, fmt.Errorf("cgroup %s: %w", dir, err)
	}
	return s.Ino, nil
}

// CgroupMount is where cgroups of version 2 are mounted: proc_pid_mountinfo(5).
func CgroupMount() (string, error) {
	all, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return "", err
	}
	for line := range strings.Lines(string(all)) {
		before, after, ok := strings.Cut(line, " - ")
		fields := strings.Fields(before)
		if ok && len(fields) > 4 && strings.HasPrefix(after, "cgroup2 ") {
			return fields[4], nil
		}
	}
	return "", errors.New("no cgroup file system of version 2 is mounted")
}

// OwnCgroup is the path of this process's cgroup below the mount of version 2.
func OwnCgroup() (string, error) {
	all, err := os.ReadFile("/proc/self/cgroup")
	if err != nil {
		return "", err
	}
	for line := range strings.Lines(string(all)) {
		if path, ok := strings.CutPrefix(line, "0::"); ok {
			return strings.TrimSpace(path), nil
		}
	}
	return "", errors.New("this process is in no cgroup of version 2")
}

// NewFileSystem makes a BPF file system that is mounted nowhere: who holds the file reaches it by the
// file's path in /proc, and it is gone when nobody does.
func NewFileSystem() (*os.File, error) {
	fs, err := unix.Fsopen("bpf", unix.FSOPEN_CLOEXEC)
	if err != nil {
		return nil, err
	}
	defer func() { _ = unix.Close(fs) }()
	if err := unix.FsconfigCreate(fs); err != nil {
		return nil, err
	}
	root, err := unix.Fsmount(fs, unix.FSMOUNT_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	return os.NewFile(uintptr(root), "bpf"), nil
}

// ErrTaken says that another process has the lock.
var ErrTaken = errors.New("another process has it")

// Lock takes the directory for this process, until the file is closed or the process ends.
func Lock(dir string) (*os.File, error) {
	f, err := os.Open(dir)
	if err != nil {
		return nil, fmt.Errorf("lock: %w", err)
	}
	err = unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
	if err == nil {
		return f, nil
	}
	if errors.Is(err, unix.EWOULDBLOCK) {
		err = ErrTaken
	}
	return nil, errors.Join(fmt.Errorf("lock %s: %w", dir, err), f.Close())
}

// NamespaceCookie is the number by which programs know the network namespace of the calling thread.
func NamespaceCookie() (uint64, error) {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return 0, fmt.Errorf("namespace cookie: %w", err)
	}
	defer func() { _ = unix.Close(fd) }()
	cookie, err := unix.GetsockoptUint64(fd, unix.SOL_SOCKET, unix.SO_NETNS_COOKIE)
	if err != nil {
		return 0, fmt.Errorf("namespace cookie: %w", err)
	}
	return cookie, nil
}
