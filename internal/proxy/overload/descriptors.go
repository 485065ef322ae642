package overload

// ownDescriptors are for listeners, the control plane, logs, the admin interface.
const ownDescriptors = 64

// bearable is the part of a table of descriptors that is for connections of clients.
func bearable(table int64) int64 {
	return max((table-min(ownDescriptors, table/4))/2, 1)
}
