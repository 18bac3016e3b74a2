package store

// Unsynced are options under which nothing is forced to the disk. What is killed is a process then, not a machine.
func Unsynced(o Options) Options {
	o.unsynced = true
	return o
}
