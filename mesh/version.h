/* mesh/version.h: the one place that says which release this is. */
#ifndef MESH_VERSION_H
#define MESH_VERSION_H

#define MESH_VERSION "0.1.0"

#endif
